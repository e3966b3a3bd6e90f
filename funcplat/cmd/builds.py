"""``funcplat runtime build``: images of runtimes for the Docker driver."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import pathlib
import uuid
from typing import TYPE_CHECKING, Any

from funcplat.cmd import base, failures, server

if TYPE_CHECKING:
    from oslo_config import cfg

DRIVER = "docker"


class Build(base.Command):
    """Build the image of a runtime in the Docker Engine that the Docker driver is configured for."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        server.add_configuration_options(parser)
        parser.add_argument("language", metavar="LANGUAGE", nargs="?", default="python", help="Else python.")
        parser.add_argument(
            "--base",
            metavar="IMAGE",
            help="The image to build on: any that has the language; else that of the Dockerfile.",
        )
        parser.add_argument("--tag", metavar="NAME", help="Name of the new image; else funcplat/LANGUAGE:1.")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        """The image's id goes to standard output, what the Engine says to standard error."""
        from funcplat import errors

        tag = parsed_args.tag or f"funcplat/{parsed_args.language}:1"
        with server.configured(parsed_args) as conf:
            try:
                with contextlib.closing(_driver(conf)) as driver:
                    image_id = driver.build_runtime(parsed_args.language, parsed_args.base, tag, self.say)
            except errors.DriverError as error:
                raise failures.PlatformFailure(error.message, error.code) from error
        self.app.stdout.write(f"{image_id}\n")
        self.say(f"funcplat runtime create {tag} --orchestrator {DRIVER}")
        return 0


def _driver(conf: cfg.ConfigOpts) -> Any:
    """The driver, as configured, for an installation of which nothing is known."""
    from funcplat import plugins
    from funcplat.drivers import base as driver_base

    context = driver_base.Context(
        owner=str(uuid.uuid4()),
        state_dir=pathlib.Path(conf.state_dir).expanduser().absolute(),  # nothing is kept there
        exposed=False,
        clock=lambda: datetime.datetime.now(datetime.UTC),
    )
    return plugins.construct(plugins.ORCHESTRATOR, DRIVER, conf, context)
