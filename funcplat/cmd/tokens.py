"""``funcplat token ...``: who may speak to a server with the auth driver ``tokens``."""

from __future__ import annotations

import argparse
import datetime
import pathlib

from funcplat.cmd import base, failures, server, values

DRIVER = "tokens"


class Create(base.Command):
    """Make a token: print it once, and keep its hash in the file of the auth driver tokens."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        server.add_configuration_options(parser)
        parser.add_argument(
            "--project", required=True, help="Id of the project whose things it gives access to."
        )
        parser.add_argument("--user", required=True, help="Who holds it, for logs.")
        parser.add_argument(
            "--role",
            action="append",
            default=[],
            help="A role of its holder; may be repeated. admin allows everything.",
        )
        parser.add_argument(
            "--days", type=values.count, metavar="N", help="It expires after N days; else never."
        )
        parser.add_argument(
            "--file",
            type=pathlib.Path,
            metavar="PATH",
            help="Else [auth_tokens] file of the configuration, else tokens.toml in state_dir.",
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        """The token goes to standard output alone, so that it can be piped to where it is kept."""
        from funcplat import errors
        from funcplat.auth import tokenfile

        path = parsed_args.file or _configured_path(parsed_args)
        token, token_hash = tokenfile.generate()
        try:
            tokenfile.add_token(
                path,
                token_hash,
                parsed_args.project,
                parsed_args.user,
                parsed_args.role,
                _expiry(parsed_args.days),
            )
        except errors.DriverError as error:
            raise failures.UsageFailure(error.message) from error
        self.app.stdout.write(f"{token}\n")
        self.say(f"its hash is in {path}; the token itself is kept nowhere")
        return 0


def _configured_path(parsed_args: argparse.Namespace) -> pathlib.Path:
    from funcplat import plugins
    from funcplat.auth import tokenfile

    with server.configured(parsed_args) as conf:
        group = plugins.AUTH.group(DRIVER)
        conf.register_opts(list(plugins.load_class(plugins.AUTH, DRIVER).opts), group=group)
        if conf[group].file:
            return pathlib.Path(conf[group].file)
        return tokenfile.default_path(pathlib.Path(conf.state_dir).expanduser().absolute())


def _expiry(days: int | None) -> datetime.datetime | None:
    if days is None:
        return None
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    return now + datetime.timedelta(days=days)
