"""``funcplat runtime ...``"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Any

from funcplat.cmd import base, client, failures

COLUMNS = (
    "id",
    "name",
    "image",
    "status",
    "description",
    "is_public",
    "trusted",
    "project_id",
    "created_at",
    "updated_at",
)
BRIEF = ("id", "name", "image", "status")
PATIENCE = 30.0
"""Seconds that a runtime gets to become available."""


class Create(base.Show):
    """Create a runtime: an image that functions run on (administrators only)."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("image", metavar="IMAGE", help="Such as python3; what there is, the server says.")
        parser.add_argument("--name")
        parser.add_argument("--description")
        parser.add_argument(
            "--orchestrator",
            metavar="DRIVER",
            help="The driver that runs its workers; else the server's default.",
        )
        parser.add_argument("--private", action="store_true", help="Only for functions of this project.")
        parser.add_argument("--untrusted", action="store_true", help="Isolate its workers more strongly.")
        _add_wait_option(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> base.Row:
        """Create it, and wait until it is available."""
        wanted = {
            "image": parsed_args.image,
            "name": parsed_args.name,
            "description": parsed_args.description,
            "orchestrator": parsed_args.orchestrator,
            "is_public": not parsed_args.private,
            "trusted": not parsed_args.untrusted,
        }
        body = client.json_body({key: value for key, value in wanted.items() if value is not None})
        runtime = self.client.request("POST", "/v1/runtimes", body=body).json()
        return _shown(_settled(self.client, runtime) if parsed_args.wait else runtime)


class List(base.List):
    """List runtimes."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        base.add_list_options(parser, projects=False)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Any]:
        """The public ones and those of the project."""
        answer = self.client.get("/v1/runtimes", base.list_query(parsed_args)).json()
        return base.rows(answer.get("runtimes", []), COLUMNS if parsed_args.long else BRIEF, {})


class _One(base.Show):
    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("runtime", metavar="RUNTIME", help="Name or id.")
        return parser


class Show(_One):
    """Show a runtime."""

    def take_action(self, parsed_args: argparse.Namespace) -> base.Row:
        """By id or name."""
        return _shown(base.find(self.client, "runtimes", parsed_args.runtime))


class Update(_One):
    """Change a runtime's name, description or image (administrators only)."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("--name")
        parser.add_argument("--description")
        parser.add_argument("--image", help="The new image; refused while functions run on the runtime.")
        _add_wait_option(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> base.Row:
        """Change what is given."""
        given = {key: getattr(parsed_args, key) for key in ("name", "description", "image")}
        changes = {key: value for key, value in given.items() if value is not None}
        if not changes:
            raise failures.UsageFailure("nothing to change: give --name, --description or --image")
        runtime_id = base.find_id(self.client, "runtimes", parsed_args.runtime)
        path = f"/v1/runtimes/{runtime_id}"
        runtime = self.client.request("PUT", path, body=client.json_body(changes)).json()
        return _shown(_settled(self.client, runtime) if parsed_args.wait else runtime)


class Pool(_One):
    """Show how many workers of a runtime's pool there are, and are free (administrators only)."""

    def take_action(self, parsed_args: argparse.Namespace) -> base.Row:
        """As counts."""
        runtime_id = base.find_id(self.client, "runtimes", parsed_args.runtime)
        pool = self.client.get(f"/v1/runtimes/{runtime_id}/pool").json()
        capacity = pool.get("capacity", {})
        return ("name", "total", "available"), (
            pool.get("name"),
            capacity.get("total"),
            capacity.get("available"),
        )


class Delete(base.Command):
    """Delete runtimes that no function uses (administrators only)."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("runtimes", metavar="RUNTIME", nargs="+", help="Names or ids.")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        """Delete each; go on where one fails."""
        return base.each(parsed_args.runtimes, self._delete, self.application.complain)

    def _delete(self, reference: str) -> None:
        runtime_id = base.find_id(self.client, "runtimes", reference)
        self.client.request("DELETE", f"/v1/runtimes/{runtime_id}")
        self.say(f"runtime {reference} is being deleted")


def _add_wait_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--wait",
        action=argparse.BooleanOptionalAction,
        default=True,
        help=f"Wait until it is available, at most {PATIENCE:g} s.",
    )


def _settled(connection: client.Client, runtime: client.Json) -> client.Json:
    """The runtime when it is available.  Raises PlatformFailure when it ends as error or takes too long."""
    deadline = time.monotonic() + PATIENCE
    pause = 0.05
    while runtime["status"] in ("creating", "upgrading"):
        if time.monotonic() > deadline:
            raise failures.PlatformFailure(
                f"runtime {runtime['id']} is still {runtime['status']} after {PATIENCE:g} s; "
                f"see `funcplat runtime show {runtime['id']}`"
            )
        time.sleep(pause)  # the API has nothing to wait on
        pause = min(pause * 1.5, 1.0)
        runtime = connection.get(f"/v1/runtimes/{runtime['id']}").json()
    if runtime["status"] != "available":
        message, code = base.reason(runtime)
        raise failures.PlatformFailure(
            f"runtime {runtime['id']} is {runtime['status']}: {message or 'the server says no reason'}", code
        )
    return runtime


def _shown(runtime: client.Json) -> base.Row:
    return base.fields(runtime, COLUMNS, {})
