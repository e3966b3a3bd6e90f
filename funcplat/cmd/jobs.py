"""``funcplat job ...``"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from funcplat.cmd import base, client, failures, targets, values

COLUMNS = (
    "id",
    "name",
    "function_id",
    "function_version",
    "function_alias",
    "function_input",
    "status",
    "reason",
    "pattern",
    "time_zone",
    "count",
    "missed_ticks",
    "first_execution_time",
    "next_execution_time",
    "project_id",
    "created_at",
    "updated_at",
)
BRIEF = ("id", "name", "function_id", "function_alias", "status", "pattern", "next_execution_time")
CELLS: dict[str, base.Cell] = {"reason": values.structure, "function_input": values.structure}


class _Written(base.Show):
    """What create and update have in common."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("--name", help="For people.")
        parser.add_argument(
            "--pattern",
            metavar="CRON",
            help="When it runs: five fields, or six with seconds last, or words like @hourly. Quote it.",
        )
        parser.add_argument(
            "--time-zone",
            metavar="ZONE",
            help="Of the pattern and of times, such as Europe/Berlin; else UTC.",
        )
        parser.add_argument("--input", metavar="JSON", help="The function's input: JSON, @FILE, or -.")
        parser.add_argument(
            "--missed",
            choices=("once", "skip"),
            help="What becomes of ticks while no server was there: one run for all of them, or none.",
        )
        return parser

    def _fields(self, parsed_args: argparse.Namespace) -> client.Json:
        given = {
            "name": parsed_args.name,
            "pattern": parsed_args.pattern,
            "time_zone": parsed_args.time_zone,
            "function_input": values.function_input(parsed_args.input, ()),
            "missed_ticks": parsed_args.missed,
        }
        return {name: value for name, value in given.items() if value is not None}


class Create(_Written):
    """Run a function at the times of a cron pattern, or once."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        targets.add_options(parser)
        parser.add_argument(
            "--at",
            metavar="TIME",
            help="Run once at this time, or with --pattern from it on; at least a minute ahead.",
        )
        parser.add_argument("--count", type=values.count, metavar="N", help="Run so many times and no more.")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> base.Row:
        """It runs from its first tick on."""
        if not (parsed_args.pattern or parsed_args.at):
            raise failures.UsageFailure("when is it to run? give --pattern or --at")
        fields = targets.fields(self.client, parsed_args) | self._fields(parsed_args)
        more = {"first_execution_time": parsed_args.at, "count": parsed_args.count}
        fields |= {name: value for name, value in more.items() if value is not None}
        return _shown(self.client.request("POST", "/v1/jobs", body=client.json_body(fields)).json())


class Update(_Written):
    """Change what is given of a job; a new pattern counts after the next run, or as --next says."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = _with_job(super().get_parser(prog_name))
        parser.add_argument("--next", metavar="TIME", help="Run next at this time; at least a minute ahead.")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> base.Row:
        """One that is over is not changed."""
        fields = self._fields(parsed_args)
        if parsed_args.next is not None:
            fields["next_execution_time"] = parsed_args.next
        if not fields:
            raise failures.UsageFailure("nothing to change: see `funcplat job update --help`")
        return _shown(_put(self.client, parsed_args.job, fields))


class List(base.List):
    """List jobs."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        base.add_list_options(parser)
        parser.add_argument("--status", help="In this state; in:running,paused names several.")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Any]:
        """Those of the project, unless options say otherwise."""
        query = {**base.list_query(parsed_args), "status": parsed_args.status}
        answer = self.client.get("/v1/jobs", query).json()
        return base.rows(answer.get("jobs", []), COLUMNS if parsed_args.long else BRIEF, CELLS)


class Show(base.Show):
    """Show a job."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        return _with_job(super().get_parser(prog_name))

    def take_action(self, parsed_args: argparse.Namespace) -> base.Row:
        """With the reason where it does not run as it should."""
        return _shown(self.client.get(f"/v1/jobs/{parsed_args.job}").json())


class _Each(base.Command):
    """Do something to each of several jobs."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("jobs", metavar="JOB", nargs="+", help="Ids.")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        """Go on where one fails."""
        return base.each(parsed_args.jobs, self._do, self.application.complain)

    def _do(self, job_id: str) -> None:
        raise NotImplementedError


class Delete(_Each):
    """Delete jobs; the executions that they made stay."""

    def _do(self, job_id: str) -> None:
        self.client.request("DELETE", f"/v1/jobs/{job_id}")
        self.say(f"job {job_id} is deleted")


class _Set(_Each):
    status = ""

    def _do(self, job_id: str) -> None:
        job = _put(self.client, job_id, {"status": self.status})
        self.say(f"job {job_id} is {job.get('status')}")


class Pause(_Set):
    """Let jobs run no more until they are resumed."""

    status = "paused"


class Resume(_Set):
    """Let paused jobs run again from now on; ticks in between are not made up for."""

    status = "running"


class Cancel(_Set):
    """End jobs for good."""

    status = "cancelled"


def _with_job(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("job", metavar="JOB", help="Id.")
    return parser


def _put(connection: client.Client, job_id: str, fields: client.Json) -> client.Json:
    answer = connection.request("PUT", f"/v1/jobs/{job_id}", body=client.json_body(fields))
    job: client.Json = answer.json()
    return job


def _shown(job: client.Json) -> base.Row:
    return base.fields(job, COLUMNS, CELLS)
