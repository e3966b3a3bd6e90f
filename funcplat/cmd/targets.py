"""What jobs and webhooks call, as people type it."""

from __future__ import annotations

import argparse

from funcplat.cmd import base, client, failures, values


def add_options(parser: argparse.ArgumentParser, positional: bool = True) -> None:
    """A function, as a positional argument or as --function, or an alias."""
    if positional:
        parser.add_argument("function", metavar="FUNCTION", nargs="?", help="Name or id; none with --alias.")
    else:
        parser.add_argument("--function", metavar="FUNCTION", help="Call this function: name or id.")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--version", type=values.version, metavar="VERSION", help="Call this version; else 0, its own code."
    )
    which.add_argument("--alias", metavar="NAME", help="Call what this alias leads to at each call.")


def fields(connection: client.Client, parsed_args: argparse.Namespace, needed: bool = True) -> client.Json:
    """The fields of the wire that are given.  Raises UsageFailure where one is ``needed`` and none is."""
    function, alias = parsed_args.function, parsed_args.alias
    if function is not None and alias is not None:
        raise failures.UsageFailure("an alias leads to its function by itself: give one of both")
    if needed and function is None and alias is None:
        raise failures.UsageFailure("what is to be called? name a function, or an alias with --alias")
    given = {
        "function_id": None if function is None else base.find_id(connection, "functions", function),
        "function_version": parsed_args.version,
        "function_alias": alias,
    }
    return {name: value for name, value in given.items() if value is not None}
