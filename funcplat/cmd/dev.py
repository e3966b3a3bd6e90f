"""``funcplat dev``: a folder as a function, on the developer's own machine and without a server."""

from __future__ import annotations

import argparse
import json
import os
import pathlib
from typing import Any

from funcplat.cmd import base, failures, package, values


class Dev(base.Command):
    """Run a folder or a file of Python as a function here, without a server, reloaded on every save."""

    epilog = (
        "GET / calls it with the query string as keyword arguments, POST / with a JSON object. It runs in "
        "this terminal: print(), input() and breakpoint() work."
    )

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("path", metavar="DIR|FILE", type=pathlib.Path)
        parser.add_argument(
            "--entry",
            metavar="MODULE.FUNCTION",
            help="What is called; else MODULE.main of a file, main.main of a folder.",
        )
        parser.add_argument("--port", type=values.port, default=7071, help="Of 127.0.0.1; 0 is any free one.")
        parser.add_argument(
            "--env",
            action="append",
            default=[],
            type=values.pair,
            metavar="KEY=VALUE",
            help="An environment variable of the function; may be repeated.",
        )
        parser.add_argument(
            "--call",
            nargs="*",
            type=values.argument,
            metavar="KEY=VALUE",
            help="Call it once with these arguments, print the result and exit.",
        )
        parser.add_argument("--input", metavar="JSON", help="With --call: the whole input; JSON, @FILE or -.")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        """Serves until Ctrl-C, or calls once."""
        folder, entry = _place(parsed_args.path, parsed_args.entry)
        os.environ.update(parsed_args.env)
        once = parsed_args.call is not None or parsed_args.input is not None
        if not once:
            return self._serve(folder, entry, parsed_args)
        text = values.function_input(parsed_args.input, parsed_args.call or ())
        return self._call(folder, entry, parsed_args, text or "")

    def _serve(self, folder: pathlib.Path, entry: str, parsed_args: argparse.Namespace) -> int:
        from funcplat.cmd import devserver, program

        server = devserver.Server(parsed_args.port)
        self.say(f"{entry} of {folder} is at {server.url}; Ctrl-C ends it")
        running = program.Program(folder, entry, parsed_args.path.is_dir(), self.say)
        running.load()
        # This thread runs the function, since only the main thread has the terminal's signals: a
        # breakpoint() works as it does in a script.
        for call in server.calls(lambda: running.pause):
            running.refresh()
            if call is not None:
                self.say(f"{call.method} {json.dumps(call.arguments, ensure_ascii=False)}")
                call.outcome.set_result(running.run(call.arguments))
        return 0

    def _call(self, folder: pathlib.Path, entry: str, parsed_args: argparse.Namespace, text: str) -> int:
        from funcplat.cmd import devserver, program

        running = program.Program(folder, entry, parsed_args.path.is_dir(), self.say)
        if not running.load():
            return failures.FunctionFailed.exit_code
        outcome = running.run(devserver.keywords(text))
        if not outcome.ok:
            return failures.FunctionFailed.exit_code
        self.app.stdout.write(f"{_pretty(outcome.text)}\n")
        return 0


def _place(path: pathlib.Path, entry: str | None) -> tuple[pathlib.Path, str]:
    """The folder and the entry that a path means."""
    if path.is_dir():
        _refuse_nodejs(*(found for found in path.iterdir() if found.stem in ("index", "main")))
        return path.resolve(), entry or "main.main"
    _refuse_nodejs(path)
    if not path.is_file() or path.suffix != ".py":
        raise failures.UsageFailure(f"{path} is neither a directory nor a Python file")
    return path.resolve().parent, entry or f"{path.stem}.main"


def _refuse_nodejs(*modules: pathlib.Path) -> None:
    """Where there are modules of Node.js alone, say what to do instead."""
    if modules and all(module.suffix in package.NODEJS for module in modules):
        module = modules[0]
        script = f'import("{module.resolve()}").then(async (m) => console.log(await m.main({{}}, {{}})))'
        raise failures.UsageFailure(
            f"{module} is for Node.js, and this runs Python alone; "
            f"try it with Node.js itself: node -e '{script}'"
        )


def _pretty(text: str) -> Any:
    return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
