"""``funcplat execution ...``, and what ``invoke`` shares with it."""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Sequence
from typing import Any, TextIO, cast

from funcplat.cmd import base, client, failures, values

COLUMNS = (
    "id",
    "function_id",
    "function_version",
    "function_alias",
    "status",
    "reason",
    "sync",
    "input",
    "result",
    "description",
    "project_id",
    "created_at",
    "updated_at",
)
BRIEF = ("id", "function_id", "status", "sync", "created_at", "updated_at")
CELLS: dict[str, base.Cell] = {
    "input": values.structure,
    "result": values.structure,
    "reason": values.structure,
}
LOG_WAIT = 20
"""Seconds that one request for a running execution's log waits for more of it."""

COLD_START = 90.0
"""Seconds over the function's timeout that a call may take: waiting for a worker, and imports."""

UNKNOWN_TIMEOUT = 300.0
"""Seconds assumed where a function's timeout is not known: the most that a server allows by default."""


class Create(base.Show):
    """Run a function and show the execution; `funcplat invoke` shows the result alone."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        add_call_options(parser)
        parser.add_argument("--description")
        parser.add_argument(
            "--async", dest="asynchronous", action="store_true", help="Do not wait for its end."
        )
        parser.add_argument(
            "--max-attempts",
            type=int,
            metavar="N",
            help="With --async: runs at most where the function fails.",
        )
        parser.add_argument(
            "--retry-delay", type=float, metavar="SECONDS", help="Before the second of these runs."
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> base.Row:
        """A failed function makes an execution like any other: exit code 0."""
        call = called(self.client, parsed_args)
        sync = not parsed_args.asynchronous
        more = {"description": parsed_args.description, "retry": _retry(parsed_args)}
        return _shown(start(self.client, call, sync, **more))


class List(base.List):
    """List executions."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        base.add_list_options(parser)
        parser.add_argument("--function", metavar="FUNCTION", help="Of this function: name or id.")
        parser.add_argument("--status", help="In this state; in:success,failed names several.")
        parser.add_argument("--description", metavar="TEXT", help="So described; has:TEXT finds parts.")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Any]:
        """Those of the project, unless options say otherwise."""
        query = {
            **base.list_query(parsed_args),
            "status": parsed_args.status,
            "description": parsed_args.description,
        }
        if parsed_args.function:
            query["function_id"] = base.find_id(self.client, "functions", parsed_args.function)
        answer = self.client.get("/v1/executions", query).json()
        return base.rows(answer.get("executions", []), COLUMNS if parsed_args.long else BRIEF, CELLS)


class Show(base.Show):
    """Show an execution."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        return _with_execution(super().get_parser(prog_name))

    def take_action(self, parsed_args: argparse.Namespace) -> base.Row:
        """With its input, result and reason."""
        return _shown(self.client.get(f"/v1/executions/{parsed_args.execution}").json())


class Delete(base.Command):
    """Delete executions with their logs."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("executions", metavar="EXECUTION", nargs="+", help="Ids.")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        """Delete each; go on where one fails."""
        return base.each(parsed_args.executions, self._delete, self.application.complain)

    def _delete(self, execution_id: str) -> None:
        self.client.request("DELETE", f"/v1/executions/{execution_id}")
        self.say(f"execution {execution_id} is deleted")


class Cancel(base.Command):
    """Cancel executions that have not ended."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("executions", metavar="EXECUTION", nargs="+", help="Ids.")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        """Cancel each; go on where one fails."""
        return base.each(parsed_args.executions, self._cancel, self.application.complain)

    def _cancel(self, execution_id: str) -> None:
        self.client.request("POST", f"/v1/executions/{execution_id}/cancel")
        self.say(f"execution {execution_id} is cancelled")


class Redrive(base.Command):
    """Queue executions again that the platform has given up."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("executions", metavar="EXECUTION", nargs="+", help="Ids.")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        """Queue each; go on where one fails."""
        return base.each(parsed_args.executions, self._redrive, self.application.complain)

    def _redrive(self, execution_id: str) -> None:
        self.client.request("POST", f"/v1/executions/{execution_id}/redrive")
        self.say(f"execution {execution_id} is queued again")


class Log(base.Command):
    """Show what an execution wrote; -f follows one that still runs."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = _with_execution(super().get_parser(prog_name))
        parser.add_argument("-f", "--follow", action="store_true", help="Until the execution ends.")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        """On standard output."""
        if parsed_args.follow:
            follow_log(self.client, parsed_args.execution, self.application.stdout)
        else:
            copy_log(self.client, parsed_args.execution, self.application.stdout)
        return 0


def add_call_options(parser: argparse.ArgumentParser) -> None:
    """The function to call, a version or an alias of it, and its input."""
    parser.add_argument("function", metavar="FUNCTION", nargs="?", help="Name or id; none with --alias.")
    parser.add_argument(
        "arguments",
        metavar="KEY=VALUE",
        nargs="*",
        type=values.argument,
        help="A keyword argument: JSON where VALUE is valid JSON, else a string. "
        """A string that looks like JSON is quoted: zip='"0123"'.""",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--version", type=values.version, metavar="VERSION", help="Call this version; else 0, its own code."
    )
    which.add_argument("--alias", metavar="NAME", help="Call what this alias leads to.")
    parser.add_argument(
        "--input",
        metavar="JSON",
        help="The whole input: JSON, @FILE, or - for standard input; a text that is not a JSON object "
        "arrives as __function_input. KEY=VALUE is put over it.",
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Call:
    """What is called with what: fields of an execution, and the function's timeout in seconds."""

    fields: client.Json
    timeout: float


def called(connection: client.Client, parsed_args: argparse.Namespace) -> Call:
    """The call that the options of `add_call_options` ask for."""
    arguments = parsed_args.arguments
    if parsed_args.alias is not None:
        # The first positional argument is an argument then.
        if parsed_args.function is not None:
            arguments = [_argument(parsed_args.function), *arguments]
        fields, timeout = {"function_alias": parsed_args.alias}, UNKNOWN_TIMEOUT
    elif parsed_args.function is None:
        raise failures.UsageFailure("what is to be called? name a function, or an alias with --alias")
    else:
        function = base.find(connection, "functions", parsed_args.function)
        fields = {"function_id": function["id"], "function_version": parsed_args.version}
        timeout = float(function.get("timeout") or UNKNOWN_TIMEOUT)
    return Call({**fields, "input": values.function_input(parsed_args.input, arguments)}, timeout)


def _argument(text: str) -> tuple[str, Any]:
    try:
        return values.argument(text)
    except argparse.ArgumentTypeError as error:
        raise failures.UsageFailure(f"with --alias there is no function to name: {error}") from error


def start(connection: client.Client, call: Call, sync: bool, **more: Any) -> client.Json:
    """Create an execution; with ``sync`` it has ended when this returns."""
    wanted = {**call.fields, "sync": sync, **more}
    body = client.json_body({key: value for key, value in wanted.items() if value is not None})
    patience = call.timeout + COLD_START if sync else None
    answer = connection.request("POST", "/v1/executions", body=body, timeout=patience)
    return cast(client.Json, answer.json())


def ended(connection: client.Client, execution_id: str) -> client.Json:
    """The execution when it does not run any more."""
    pause = 0.02
    while True:
        execution = cast(client.Json, connection.get(f"/v1/executions/{execution_id}").json())
        if execution["status"] != "running":
            return execution
        time.sleep(pause)  # its log is complete, so that the record is about to be written
        pause = min(pause * 2, 1.0)


def output(execution: client.Json) -> Any:
    """What the function returned, or the platform's sentence about why it did not."""
    result = execution.get("result")
    if isinstance(result, str):
        result = json.loads(result)
    return result.get("output") if isinstance(result, dict) else None


def copy_log(connection: client.Client, execution_id: str, sink: TextIO) -> None:
    """Write the log, as far as it goes now, as the bytes that it is."""
    _write(sink, connection.get(f"/v1/executions/{execution_id}/log").content)


def follow_log(connection: client.Client, execution_id: str, sink: TextIO) -> None:
    """Write the log as it grows, until the execution has ended."""
    offset, complete = 0, False
    while not complete:
        started = time.monotonic()
        answer = connection.get(
            f"/v1/executions/{execution_id}/log",
            {"offset": offset, "wait": LOG_WAIT},
            timeout=LOG_WAIT + client.PATIENCE,
        )
        _write(sink, answer.content)
        complete = answer.headers.get("x-log-complete", "true") != "false"
        offset = int(answer.headers.get("x-log-offset", offset + len(answer.content)))
        if not complete and not answer.content and time.monotonic() - started < 0.5:
            time.sleep(0.5)  # a server that does not wait must not be asked without a pause


def _write(sink: TextIO, content: bytes) -> None:
    sink.flush()
    sink.buffer.write(content)
    sink.buffer.flush()


def _retry(parsed_args: argparse.Namespace) -> client.Json | None:
    if parsed_args.max_attempts is None:
        return None
    retry = {"max_attempts": parsed_args.max_attempts, "delay": parsed_args.retry_delay}
    return {name: value for name, value in retry.items() if value is not None}


def _with_execution(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("execution", metavar="EXECUTION", help="Id.")
    return parser


def _shown(execution: client.Json) -> base.Row:
    return base.fields(execution, COLUMNS, CELLS)
