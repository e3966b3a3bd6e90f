"""A real Node.js worker in a process of its own."""

from __future__ import annotations

import os
import pathlib
import shutil
import socket
import subprocess
import textwrap
from collections.abc import Callable, Mapping
from typing import Any

from tests import environments
from tests.integration import worker_harness

WORKER = environments.ROOT / "runtimes" / "nodejs" / "worker.js"
NODE_VARIABLE = "FUNCPLAT_TEST_NODE"
"""Names another node than the first on PATH."""
_COUNTERS = {"oom_kills": "low 0\noom_kill {}\n", "pids_hits": "max {}\n"}


def node() -> str | None:
    """The interpreter that runs the worker, if there is one."""
    return os.environ.get(NODE_VARIABLE) or shutil.which("node")


class NodeTestCase(worker_harness.WorkerTestCase):
    """`WorkerTestCase` for the Node.js worker; modules are files, named by their whole name."""

    def setUp(self) -> None:
        found = node()
        if found is None:
            self.skipTest("node is not installed; Debian has it in nodejs")
        self.node = found
        super().setUp()

    def count(self, name: str, value: int) -> None:
        path = pathlib.Path(self.directory, name)
        path.with_suffix(".new").write_text(_COUNTERS[name].format(value))
        # In place, since the worker keeps the file open, as it would one of the kernel's.
        path.write_text(path.with_suffix(".new").read_text())

    def write(self, files: Mapping[str, str] | None = None, **modules: str) -> str:
        """Write an unpacked package of files by their names, and of modules, and return its directory."""
        for name, text in {**(files or {}), **{f"{name}.js": text for name, text in modules.items()}}.items():
            path = pathlib.Path(self.directory, "package", name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))
        return f"{self.directory}/package"

    def listener(self) -> socket.socket:
        """Where the worker of `start` listens; sets `self.address`."""
        self.address: Any = f"{self.directory}/socket"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(self.address)
        return listener

    def start(
        self,
        *options: str,
        lifeline: int | None = None,
        before: Callable[[], None] | None = None,
    ) -> worker_harness.Client:
        """Start a blank worker; ``before`` is called in its process before it is one."""
        listener = self.listener()
        self.addCleanup(listener.close)
        listener.listen(64)
        given = [f"--listen=fd:{listener.fileno()}", *options]
        if lifeline is not None:
            given.append(f"--lifeline={lifeline}")
        self.spawn([*self.command(), *given], [listener.fileno(), *([lifeline] if lifeline else [])], before)
        return self.connect()

    def command(self) -> list[str]:
        """The command line of a worker, without what it listens on."""
        return [
            self.node,
            str(WORKER),
            "--concurrency=3",
            f"--code-dir={self.directory}/pushed/code",
            f"--scratch={self.directory}/scratch",
            f"--oom-kills={self.directory}/oom_kills",
            f"--pids-hits={self.directory}/pids_hits",
        ]

    def spawn(
        self, argv: list[str], descriptors: list[int], before: Callable[[], None] | None = None
    ) -> None:
        self.process = subprocess.Popen(
            argv,
            pass_fds=descriptors,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=before,
        )
        self.addCleanup(self._stop)

    def loaded(self, text: str, **fields: Any) -> worker_harness.Client:
        """A worker with this module ``main`` loaded; ``main.main`` is its entry."""
        client = self.start()
        answer = client.load(path=self.write(main=text), **fields)
        self.assertEqual(200, answer.status, answer)
        return client
