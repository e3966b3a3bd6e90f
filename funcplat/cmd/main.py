"""The ``funcplat`` command: its table of contents and what surrounds every command."""

from __future__ import annotations

import argparse
import functools
import importlib
import importlib.metadata
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

from cliff import _argparse, app, command, commandmanager

from funcplat.cmd import client, failures

DEFAULT_ENDPOINT = "http://127.0.0.1:7070"

COMMANDS = {
    "Call functions": {
        "invoke": "invoke:Invoke",
        "dev": "dev:Dev",
    },
    "Functions and what they run on": {
        "function create": "functions:Create",
        "function list": "functions:List",
        "function show": "functions:Show",
        "function update": "functions:Update",
        "function delete": "functions:Delete",
        "function download": "downloads:Download",
        "function detach": "workers:Detach",
        "function scale-up": "workers:ScaleUp",
        "function scale-down": "workers:ScaleDown",
        "version create": "versions:Create",
        "version list": "versions:List",
        "version show": "versions:Show",
        "version delete": "versions:Delete",
        "version download": "versions:Download",
        "version detach": "versions:Detach",
        "version scale-up": "versions:ScaleUp",
        "version scale-down": "versions:ScaleDown",
        "alias create": "aliases:Create",
        "alias list": "aliases:List",
        "alias show": "aliases:Show",
        "alias update": "aliases:Update",
        "alias delete": "aliases:Delete",
        "runtime build": "builds:Build",
        "runtime create": "runtimes:Create",
        "runtime list": "runtimes:List",
        "runtime show": "runtimes:Show",
        "runtime update": "runtimes:Update",
        "runtime delete": "runtimes:Delete",
        "runtime pool": "runtimes:Pool",
        "worker list": "workers:List",
    },
    "Executions": {
        "execution create": "executions:Create",
        "execution list": "executions:List",
        "execution show": "executions:Show",
        "execution delete": "executions:Delete",
        "execution log": "executions:Log",
        "execution cancel": "executions:Cancel",
        "execution redrive": "executions:Redrive",
        "dead-letter list": "dead_letters:List",
        "dead-letter redrive": "dead_letters:Redrive",
        "dead-letter purge": "dead_letters:Purge",
    },
    "Jobs and webhooks": {
        "job create": "jobs:Create",
        "job list": "jobs:List",
        "job show": "jobs:Show",
        "job update": "jobs:Update",
        "job pause": "jobs:Pause",
        "job resume": "jobs:Resume",
        "job cancel": "jobs:Cancel",
        "job delete": "jobs:Delete",
        "webhook create": "webhooks:Create",
        "webhook list": "webhooks:List",
        "webhook show": "webhooks:Show",
        "webhook update": "webhooks:Update",
        "webhook rotate": "webhooks:Rotate",
        "webhook delete": "webhooks:Delete",
    },
    "Run a server": {
        "serve": "server:Serve",
        "api": "server:Api",
        "engine": "server:Engine",
        "db upgrade": "server:DatabaseUpgrade",
        "db check": "server:DatabaseCheck",
        "drivers list": "server:DriversList",
        "token create": "tokens:Create",
    },
    "Help": {
        "status": "status:Status",
        "help": "help:Help",
        "complete": "help:Complete",
    },
}
"""Every command by its heading: the module in this package and the class."""


class Entry:
    """A command that is imported when it is asked for; what cliff takes for an entry point."""

    def __init__(self, value: str) -> None:
        self.value = value

    def load(self) -> type[command.Command]:
        """The command's class."""
        module, _, name = self.value.partition(":")
        loaded: type[command.Command] = getattr(importlib.import_module(f"funcplat.cmd.{module}"), name)
        return loaded


class Commands(commandmanager.CommandManager):
    """The commands of `COMMANDS`, without a look at the entry points of everything installed."""

    def __init__(self) -> None:
        super().__init__(namespace=None, convert_underscores=False)
        self.convert_underscores = True  # cliff splits names at spaces when it looks for similar ones

    def install(self) -> None:
        """Put the commands in the place of cliff's own."""
        entries: Any = {name: Entry(value) for group in COMMANDS.values() for name, value in group.items()}
        self.commands = entries


class Application(app.App):
    """The command line."""

    NAME = "funcplat"

    def __init__(self) -> None:
        commands = Commands()
        super().__init__("A function platform that you run yourself.", None, commands, deferred_help=True)
        commands.install()

    def build_option_parser(
        self, description: str | None, version: str | None, argparse_kwargs: dict[str, Any] | None = None
    ) -> argparse.ArgumentParser:
        """The options that stand before or after any command, and --version, which stands alone."""
        parser = _options(description)
        parser.add_argument("--version", action=Version, nargs=0, help="Show the version and exit.")
        return parser

    def configure_logging(self) -> None:
        """Show requests with --verbose; what servers log is the server's business."""
        if self.options.verbose_level > 1:
            handler = logging.StreamHandler(self.stderr)
            logger = logging.getLogger("funcplat.cmd")
            logger.setLevel(logging.DEBUG)
            logger.addHandler(handler)

    def interact(self) -> NoReturn:
        """There is no shell of its own: cmd2 takes half a second to import."""
        raise failures.UsageFailure("which command? see `funcplat --help`")

    @functools.cached_property
    def client(self) -> client.Client:
        """The connection to the server that options or environment name."""
        options = self.options
        return client.Client(options.endpoint, options.token, options.request_timeout)

    def run_subcommand(self, argv: list[str]) -> int:
        """Run the command that ``argv`` begins with; a Failure leaves as an exception."""
        try:
            factory, name, rest = self.command_manager.find_command(argv)
        except ValueError:
            raise failures.UsageFailure(self._unknown(argv)) from None
        running = factory(self, self.options, cmd_name=name)
        parser = running.get_parser(f"{self.NAME} {name}")
        # Intermixed: `invoke NAME --wait key=value` has an option between positional arguments.
        return running.run(parser.parse_intermixed_args(rest))

    def close(self) -> None:
        """Close what was opened.  Idempotent."""
        if "client" in vars(self):
            self.client.close()

    def complain(self, message: str) -> None:
        """An error for people, on standard error."""
        self.stderr.write(f"error: {message}\n")
        self.stderr.flush()

    def _unknown(self, argv: Sequence[str]) -> str:
        words = [word for word in argv if not word.startswith("-")]
        noun = words[0] if words else argv[0]
        known = sorted(name for name, _ in self.command_manager)
        related = [name for name in known if name.split()[0] == noun] or self.get_fuzzy_matches(noun)
        return f"there is no command {' '.join(words[:2]) or noun!r}; did you mean: {', '.join(related)}?"


class Version(argparse.Action):
    """--version, looked up only when asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        print(f"funcplat {importlib.metadata.version('funcplat')}")
        parser.exit()


def _options(description: str | None = None) -> argparse.ArgumentParser:
    """Those without --version: after a command that is the command's, and means one of a function."""
    # allow_abbrev: "--time" of a command must not be taken for a part of an option here.
    parser = _argparse.ArgumentParser(
        prog=Application.NAME, description=description, add_help=False, allow_abbrev=False
    )
    parser.add_argument(
        "-h", "--help", dest="deferred_help", action="store_true", help="Show help, also of a command."
    )
    parser.add_argument(
        "-v",
        "--verbose",
        action="count",
        dest="verbose_level",
        default=1,
        help="Show each request to the server on standard error.",
    )
    parser.add_argument(
        "-q",
        "--quiet",
        action="store_const",
        dest="verbose_level",
        const=0,
        help="Write results and errors only.",
    )
    parser.add_argument("--debug", action="store_true", help="Show a traceback with every error.")
    _add_connection_options(parser)
    return parser


def _add_connection_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("which server")
    group.add_argument(
        "--endpoint",
        metavar="URL",
        default=os.environ.get("FUNCPLAT_ENDPOINT") or DEFAULT_ENDPOINT,
        help=f"URL of the server; else $FUNCPLAT_ENDPOINT, else {DEFAULT_ENDPOINT}.",
    )
    group.add_argument(
        "--token",
        default=os.environ.get("FUNCPLAT_TOKEN"),
        help="Token that says who you are; else $FUNCPLAT_TOKEN, which other users of this machine "
        "cannot see.",
    )
    group.add_argument(
        "--request-timeout",
        type=float,
        metavar="SECONDS",
        default=None,
        help="How long the server may be silent; else 60, and what a call needs for a call.",
    )


def run(argv: Sequence[str]) -> int:
    """Run one command line and return its exit code; raises SystemExit for usage and help."""
    application = Application()
    try:
        return _run(application, list(argv))
    except failures.Failure as failure:
        if application.options.debug:
            traceback.print_exc()
        application.complain(str(failure))
        return failure.exit_code
    except KeyboardInterrupt:
        return failures.INTERRUPTED
    except BrokenPipeError:
        # The interpreter would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return failures.BROKEN_PIPE
    finally:
        application.close()


def _run(application: Application, argv: list[str]) -> int:
    application.options, rest = _options().parse_known_args(argv)
    if rest[:1] == ["--version"]:
        application.parser.parse_args(rest[:1])
    application.configure_logging()
    if application.options.deferred_help or not argv:
        rest = ["help", *rest]
    if not rest:
        application.interact()
    code = application.run_subcommand(rest)
    application.stdout.flush()
    return code


def main() -> NoReturn:
    """The entry point of the ``funcplat`` command."""
    sys.exit(run(sys.argv[1:]))
