"""``funcplat webhook ...``"""

from __future__ import annotations

import argparse
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from funcplat.cmd import base, client, failures, targets, values

COLUMNS = (
    "id",
    "webhook_url",
    "description",
    "function_id",
    "function_version",
    "function_alias",
    "signed",
    "rate_limit",
    "rate_burst",
    "previous_secret_expires_at",
    "project_id",
    "created_at",
    "updated_at",
)
BRIEF = ("id", "description", "function_id", "function_alias", "signed", "webhook_url")
CELLS: dict[str, base.Cell] = {}


class _Written(base.Show):
    """What create and update have in common."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("--description")
        _add_secret_option(parser)
        parser.add_argument(
            "--rate-limit", type=_number, metavar="N", help="Take at most N calls a minute; 0: any number."
        )
        parser.add_argument(
            "--rate-burst", type=values.count, metavar="N", help="... and at most N at once; else as many."
        )
        return parser

    def _fields(self, parsed_args: argparse.Namespace) -> client.Json:
        given = {
            "description": parsed_args.description,
            "signed": parsed_args.signed,
            "secret": _secret(parsed_args.secret_file),
            "rate_limit": parsed_args.rate_limit,
            "rate_burst": parsed_args.rate_burst,
        }
        return {name: value for name, value in given.items() if value is not None}


class Create(_Written):
    """Make an address at which others call a function without an account."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        targets.add_options(parser)
        parser.add_argument(
            "--signed",
            action="store_const",
            const=True,
            help="Take calls that are signed alone; the secret to sign with is shown this once.",
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> base.Row:
        """The address is in webhook_url."""
        fields = targets.fields(self.client, parsed_args) | self._fields(parsed_args)
        return _shown(self.client.request("POST", "/v1/webhooks", body=client.json_body(fields)).json())


class Update(_Written):
    """Change what is given of a webhook."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = _with_webhook(super().get_parser(prog_name))
        targets.add_options(parser, positional=False)
        signed = parser.add_mutually_exclusive_group()
        signed.add_argument(
            "--signed", action="store_const", const=True, help="Take calls that are signed alone."
        )
        signed.add_argument(
            "--unsigned",
            dest="signed",
            action="store_const",
            const=False,
            help="Take calls of anybody who knows the address; its secret is forgotten.",
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> base.Row:
        """A secret that is made for it is shown this once."""
        fields = targets.fields(self.client, parsed_args, needed=False) | self._fields(parsed_args)
        if not fields:
            raise failures.UsageFailure("nothing to change: see `funcplat webhook update --help`")
        path = f"/v1/webhooks/{parsed_args.webhook}"
        return _shown(self.client.request("PUT", path, body=client.json_body(fields)).json())


class Rotate(base.Show):
    """Give a webhook another secret, which is shown this once."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = _with_webhook(super().get_parser(prog_name))
        _add_secret_option(parser)
        parser.add_argument(
            "--overlap",
            type=_number,
            metavar="SECONDS",
            help="Take calls that are signed with the present secret for so long; else the server's default.",
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> base.Row:
        """The present secret is accepted for a while."""
        given = {"secret": _secret(parsed_args.secret_file), "overlap": parsed_args.overlap}
        fields = {name: value for name, value in given.items() if value is not None}
        path = f"/v1/webhooks/{parsed_args.webhook}/rotate"
        return _shown(self.client.request("POST", path, body=client.json_body(fields)).json())


class List(base.List):
    """List webhooks."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        base.add_list_options(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Any]:
        """Those of the project, unless options say otherwise."""
        answer = self.client.get("/v1/webhooks", base.list_query(parsed_args)).json()
        return base.rows(answer.get("webhooks", []), COLUMNS if parsed_args.long else BRIEF, CELLS)


class Show(base.Show):
    """Show a webhook."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        return _with_webhook(super().get_parser(prog_name))

    def take_action(self, parsed_args: argparse.Namespace) -> base.Row:
        """Without its secret, which nobody can see again."""
        return _shown(self.client.get(f"/v1/webhooks/{parsed_args.webhook}").json())


class Delete(base.Command):
    """Delete webhooks; the executions that they made stay."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("webhooks", metavar="WEBHOOK", nargs="+", help="Ids.")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        """Delete each; go on where one fails."""
        return base.each(parsed_args.webhooks, self._delete, self.application.complain)

    def _delete(self, webhook_id: str) -> None:
        self.client.request("DELETE", f"/v1/webhooks/{webhook_id}")
        self.say(f"webhook {webhook_id} is deleted")


def _with_webhook(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("webhook", metavar="WEBHOOK", help="Id.")
    return parser


def _add_secret_option(parser: argparse.ArgumentParser) -> None:
    # Not on the command line, which other users of the machine can read.
    parser.add_argument(
        "--secret-file",
        metavar="FILE",
        help="Sign with the secret in this file (- is standard input), as a sender gave it: whsec_...",
    )


def _secret(path: str | None) -> str | None:
    if path is None:
        return None
    try:
        text = sys.stdin.read() if path == "-" else pathlib.Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise failures.UsageFailure(f"cannot read the secret: {error}") from error
    return text.strip()


def _number(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def _shown(webhook: client.Json) -> base.Row:
    return base.fields(webhook, COLUMNS, CELLS)
