"""A process with a process driver, for tests that kill it or run it as another user.

``isolation_server STATE_DIR OWNER [option=value ...]`` starts one worker, prints its handle and waits to be
killed; ``isolation_server --check STATE_DIR OWNER`` looks whether all is well and ends;
``isolation_server --once STATE_DIR OWNER [option=value ...]`` runs functions, stops, and prints what it saw.

Options are the driver's, and ``node``: the workers' interpreter, ``mode``: of `sandbox.Mode`, the one to try.
"""

from __future__ import annotations

import json
import os
import pathlib
import sys
import time
from typing import Any

from funcplat.drivers.process import sandbox
from tests.integration import test_isolation

NODE_WORKER = {"memory": 96 * test_isolation.MIB, "pids": 64}
"""Of workers of Node.js: their processes are larger, and have more threads."""


def serve(state_dir: pathlib.Path, owner: str, options: dict[str, Any], worker: dict[str, Any]) -> None:
    driver = test_isolation.make_driver(state_dir, owner, **options)
    driver.check()
    handle = driver.start_worker(test_isolation.make_spec(owner, state_dir / "code", **worker), 30.0)
    print(json.dumps(handle.to_json()), flush=True)
    while True:
        time.sleep(3600)


def once(
    state_dir: pathlib.Path, owner: str, options: dict[str, Any], worker: dict[str, Any]
) -> dict[str, Any]:
    code = test_isolation.write_package(state_dir / "code")
    driver = test_isolation.make_driver(state_dir, owner, **options)
    handle = driver.start_worker(test_isolation.make_spec(owner, code, **worker), 30.0)
    actions = {"identity": "identity", "denied": "denied_calls", "supervisor": "peek_at_supervisor"}
    with test_isolation.loaded(handle) as client:
        result = {name: client.invoke({"action": action}).output for name, action in actions.items()}
        client.invoke({"action": "daemonize"})
    result["features"] = {each.name: each.isolation for each in driver.features()}
    family = test_isolation.descendants(os.getpid())
    driver.stop_worker(handle, 1.0, 30.0)
    driver.close()
    result["left"] = [pid for pid in family if test_isolation.alive(pid)]
    return result


def main(arguments: list[str]) -> None:
    if arguments[0] == "--check":
        driver = test_isolation.make_driver(pathlib.Path(arguments[1]), arguments[2])
        driver.check()
        driver.close()
        return
    is_once = arguments[0] == "--once"
    state_dir, owner, *rest = arguments[1:] if is_once else arguments
    options: dict[str, Any] = dict(argument.split("=", 1) for argument in rest)
    worker: dict[str, Any] = {}
    if node := options.pop("node", None):
        options["images"] = [f"*={node}"]
        worker = NODE_WORKER
    if mode := options.pop("mode", None):
        sandbox.ladder = lambda *_: [sandbox.Mode(mode)]
    if is_once:
        print(json.dumps(once(pathlib.Path(state_dir), owner, options, worker)))
    else:
        serve(pathlib.Path(state_dir), owner, options, worker)


if __name__ == "__main__":
    main(sys.argv[1:])
