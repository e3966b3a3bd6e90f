"""The commands of those who run a server: they read its configuration and speak to no server."""

from __future__ import annotations

import argparse
import contextlib
import pathlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from funcplat.cmd import base, failures, values

if TYPE_CHECKING:
    from oslo_config import cfg


class _Configured(base.Command):
    """A command that reads the server's configuration."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        add_configuration_options(parser)
        return parser


class _Server(_Configured):
    api = True
    engine = True

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        if self.api:
            parser.add_argument("--host", help="Address to listen on, over [api] host.")
            parser.add_argument("--port", type=values.port, help="Port to listen on, over [api] port.")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        """Blocks until SIGTERM or SIGINT."""
        with configured(parsed_args) as conf:
            from funcplat.cmd import serving

            serving.serve(conf, api=self.api, engine=self.engine)
        return 0


class Serve(_Server):
    """Run the whole platform: API and engine in one process."""


class Api(_Server):
    """Run the API alone; engines run elsewhere."""

    engine = False


class Engine(_Server):
    """Run an engine alone: queued executions, scaling, cleaning up."""

    api = False


class DatabaseUpgrade(_Configured):
    """Bring the database to the schema that this release needs."""

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        """Say what was done."""
        with configured(parsed_args) as conf:
            from funcplat import bootstrap

            self.app.stdout.write(f"{bootstrap.database_upgrade(conf)}\n")
        return 0


class DatabaseCheck(_Configured):
    """Say whether the database has the schema that this release needs; exit code 78 where not."""

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        """Say what was found."""
        with configured(parsed_args) as conf:
            from funcplat import bootstrap

            self.app.stdout.write(f"{bootstrap.database_check(conf)}\n")
        return 0


class DriversList(base.List):
    """List the installed drivers, what they can do here and what keeps them from working."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        add_configuration_options(parser)
        parser.add_argument(
            "--features",
            action="store_true",
            help="One row for each thing that a driver enforces on this machine.",
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Any]:
        """One row a driver, or one a feature."""
        with configured(parsed_args) as conf:
            from funcplat import inventory

            drivers = inventory.drivers(conf)
        if parsed_args.features:
            return ("kind", "name", "feature", "isolation", "detail"), [
                (driver.kind, driver.name, feature.name, str(feature.isolation), feature.detail)
                for driver in drivers
                for feature in driver.features
            ]
        return ("kind", "name", "enabled", "version", "distribution", "capabilities", "problem"), [
            (
                driver.kind,
                driver.name,
                driver.enabled,
                driver.version,
                driver.distribution,
                ", ".join(driver.capabilities),
                driver.problem or "",
            )
            for driver in drivers
        ]


def add_configuration_options(parser: argparse.ArgumentParser) -> None:
    """The options that say where a server's configuration is."""
    parser.add_argument(
        "--config-file",
        action="append",
        default=[],
        type=pathlib.Path,
        metavar="PATH",
        help="May be repeated, later ones win; else funcplat.conf in /etc/funcplat or the user's "
        "configuration directory.",
    )
    parser.add_argument("--state-dir", type=pathlib.Path, metavar="DIR", help="Over state_dir.")


@contextlib.contextmanager
def configured(parsed_args: argparse.Namespace) -> Iterator[cfg.ConfigOpts]:
    """The configuration with the command line over it; a ConfigError inside becomes a ConfigFailure."""
    from funcplat import conf as configuration
    from funcplat import errors

    arguments = [word for path in parsed_args.config_file for word in ("--config-file", str(path))]
    try:
        conf = configuration.load(arguments)
        _override(conf, parsed_args)
        yield conf
    except errors.ConfigError as error:
        raise failures.ConfigFailure(error.message, error.code) from error


def _override(conf: cfg.ConfigOpts, parsed_args: argparse.Namespace) -> None:
    from funcplat import errors

    if parsed_args.state_dir:
        conf.set_override("state_dir", str(parsed_args.state_dir.absolute()))
    for name in ("host", "port"):
        value = getattr(parsed_args, name, None)
        if value is not None:
            try:
                conf.set_override(name, value, group="api")
            except ValueError as error:
                raise errors.ConfigError(f"--{name} {value}: {error}") from error
