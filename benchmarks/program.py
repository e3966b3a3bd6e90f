"""The run: start both peers, measure section by section, print."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import json
import os
import pathlib
import sys
import tempfile
from collections.abc import Callable, Iterator

from benchmarks import (
    arguments,
    catalogue,
    claims,
    cold,
    containers,
    enqueue,
    kills,
    load,
    machine,
    memory,
    peers,
    report,
    warm,
)


def main() -> None:
    options = arguments.parse(sys.argv[1:])
    seen = machine.look()
    heading = [*seen.describe(), *_versions()]
    print("\n".join(heading), flush=True)
    sections = []
    try:
        for section in _measured(options):
            print(f"\n{section.text()}", flush=True)
            sections.append(section)
    except load.WrongAnswers as error:
        sys.exit(f"benchmarks/run: {error}")
    targets = [target for section in sections for target in section.targets]
    after = " ".join(f"{value:.2f}" for value in os.getloadavg())
    print("\n" + "\n".join(report.table(report.TARGET_HEAD, [target.row() for target in targets])))
    print(f"\nafter: load average {after} (the benchmark's own load is in it)")
    if options.json:
        _write(options.json, seen, sections, targets)


def _versions() -> Iterator[str]:
    names = ("funcplat", "functions-framework", "gunicorn", "uvicorn", "falcon", "SQLAlchemy")
    yield "versions: " + ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    yield f"load: {load.generator()}, one thread, the same for both peers, on the same machine"
    if os.geteuid() != 0:
        yield "not root: isolation and limits are what this user may have"


def _measured(options: arguments.Options) -> Iterator[report.Section]:
    if "claims" in options.only:
        yield claims.measure(options.databases)
    if "kills" in options.only:
        yield kills.measure(options.databases)
    if "docker" in options.only:
        # Before the platform of the others: two at once are in each other's way on a small machine.
        with tempfile.TemporaryDirectory(prefix="funcplat-bench-") as directory:
            yield containers.measure(pathlib.Path(directory), options)
    if not set(options.only) - {"claims", "kills", "docker"}:
        return
    with contextlib.ExitStack() as stack:
        directory = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="funcplat-bench-")))
        ours = stack.enter_context(peers.platform(directory))
        # The memory of the idle platform first: load leaves its traces.
        steps: dict[str, Callable[[], report.Section]] = {
            "memory": lambda: memory.measure(ours),
            "cold": lambda: cold.measure(ours, options),
            "warm": lambda: _warm(ours, directory, options),
            "queue": lambda: enqueue.measure(ours, options),
            "create": lambda: catalogue.measure_create(ours),
            "list": lambda: catalogue.measure_list(ours, ours.other_token, options),
        }
        for name, step in steps.items():
            if name in options.only:
                yield step()


def _warm(ours: peers.Platform, directory: pathlib.Path, options: arguments.Options) -> report.Section:
    with peers.framework(directory) as theirs:
        return warm.measure(ours, theirs, options)


def _write(
    path: pathlib.Path,
    seen: machine.Machine,
    sections: list[report.Section],
    targets: list[report.Target],
) -> None:
    content = {
        "machine": dataclasses.asdict(seen),
        "busy": seen.busy,
        "generator": load.generator(),
        "versions": list(_versions()),
        "targets": [dataclasses.asdict(target) | {"met": target.met} for target in targets],
        "sections": {section.name: section.samples for section in sections},
    }
    path.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
