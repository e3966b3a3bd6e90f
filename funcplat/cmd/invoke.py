"""``funcplat invoke``: call a function and get what it returns."""

from __future__ import annotations

import argparse
import json

from funcplat.cmd import base, client, executions, failures


class Invoke(base.Command):
    """Call a function: its result goes to standard output, its log to standard error."""

    epilog = (
        "Exit codes: 0 it returned, 1 it failed, 2 usage, 3 the platform could not run it, 4 not found, "
        "5 not allowed, 6 no server, 7 conflict."
    )

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        executions.add_call_options(parser)
        parser.add_argument(
            "--async",
            dest="asynchronous",
            action="store_true",
            help="Queue the call and print the execution's id at once.",
        )
        parser.add_argument(
            "--wait",
            action="store_true",
            help="Queue the call and follow its log until it ends; it goes on if you interrupt this.",
        )
        parser.add_argument("-r", "--raw", action="store_true", help="Print a string without quotes.")
        parser.add_argument("--no-log", dest="log", action="store_false", help="Leave the log out.")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        """Raises FunctionFailed where it failed and PlatformFailure where it could not run."""
        call = executions.called(self.client, parsed_args)
        if parsed_args.wait:
            return self._finish(self._queued(call, parsed_args.log), parsed_args.raw)
        if parsed_args.asynchronous:
            execution = executions.start(self.client, call, sync=False)
            self.app.stdout.write(f"{execution['id']}\n")
            return 0
        execution = executions.start(self.client, call, sync=True)
        if parsed_args.log:
            executions.copy_log(self.client, execution["id"], self.application.stderr)
        return self._finish(execution, parsed_args.raw)

    def _queued(self, call: executions.Call, log: bool) -> client.Json:
        execution_id = executions.start(self.client, call, sync=False)["id"]
        self.say(f"execution {execution_id}")
        try:
            if log:
                executions.follow_log(self.client, execution_id, self.application.stderr)
            return executions.ended(self.client, execution_id)
        except KeyboardInterrupt:
            self.say(f"it goes on; see `funcplat execution log -f {execution_id}`")
            raise

    def _finish(self, execution: client.Json, raw: bool) -> int:
        output = executions.output(execution)
        message, code = base.reason(execution)
        named = f"execution {execution['id']}"
        match execution["status"]:
            case "success":
                self._print(output, raw)
                if message:
                    self.say(f"note: {message} ({code})")
                return 0
            case "failed":
                raise failures.FunctionFailed(
                    f"the function failed: {_sentence(output, message)}", code, named
                )
            case status:
                raise failures.PlatformFailure(
                    f"the platform could not run it: {_sentence(output, message) or status}", code, named
                )

    def _print(self, output: object, raw: bool) -> None:
        text = output if raw and isinstance(output, str) else json.dumps(output, indent=2, ensure_ascii=False)
        self.app.stdout.write(f"{text}\n")


def _sentence(output: object, message: str) -> str:
    """What the function said and what the platform says of it, once where they are the same."""
    said = "" if output is None else str(output)
    return ": ".join(dict.fromkeys(part for part in (said, message) if part))
