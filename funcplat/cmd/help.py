"""``funcplat help``, and completion for bash."""

from __future__ import annotations

import argparse
import inspect

from cliff import command, complete

from funcplat.cmd import base, failures, main


class Help(base.Command):
    """Show the commands, or the options of one."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("words", nargs="*", metavar="COMMAND")
        return parser

    def run(self, parsed_args: argparse.Namespace) -> int:
        return self.take_action(parsed_args)

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        """Print it to standard output."""
        words = parsed_args.words
        if not words:
            self.app.stdout.write(f"{self.app.parser.format_help()}\n{contents()}")
            return 0
        if found := self._longest(words):
            name, factory = found
            parser = factory(self.app, self.app_args, cmd_name=name).get_parser(f"{self.app.NAME} {name}")
            self.app.stdout.write(parser.format_help())
            return 0
        if listed := contents(words[0]):
            self.app.stdout.write(listed)
            return 0
        raise failures.UsageFailure(f"there is no command {' '.join(words)!r}; see `funcplat --help`")

    def _longest(self, words: list[str]) -> tuple[str, type[command.Command]] | None:
        commands = self.app.command_manager.commands
        for length in range(len(words), 0, -1):
            name = " ".join(words[:length])
            if name in commands:
                return name, commands[name].load()
        return None


class Complete(complete.CompleteCommand):
    """Print the completion for bash: source <(funcplat complete)"""

    def _load_hooks(self) -> None:
        self._hooks = []

    def get_epilog(self) -> str:
        return ""


def contents(noun: str | None = None) -> str:
    """The commands, those of ``noun`` only where given, with one line each."""
    lines = []
    for heading, group in main.COMMANDS.items():
        names = [name for name in group if noun is None or name.split()[0] == noun]
        if names:
            lines.append(f"{heading}:")
            lines += [f"  {name:<20} {_summary(group[name])}" for name in names]
            lines.append("")
    return "\n".join(lines)


def _summary(value: str) -> str:
    text = inspect.getdoc(main.Entry(value).load()) or ""
    return text.split("\n")[0].rstrip(".")
