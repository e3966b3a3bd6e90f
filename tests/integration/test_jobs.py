"""Jobs on servers that die: API and engines in processes of their own, on one database."""

from __future__ import annotations

import collections
import subprocess

from tests.functional import platform
from tests.integration import test_databases

RUNNING = "is running"
START = 120.0
"""Seconds that servers may take which start at once with others, on a machine that has much to do."""


class DyingEnginesTests(test_databases.SeparateProcesses):
    runs = 6

    def test_every_run_is_made_once_though_engines_are_killed(self) -> None:
        self.serve("api")
        platform.until(self.answers, "the API answers")
        runtime = self.post("/runtimes", json={"image": "python3"})
        engines = [self.engine(number) for number in range(3)]
        for number in range(3):
            self.runs_again(number, 1)
        self.becomes(f"/runtimes/{runtime['id']}", "available")
        form = {"runtime_id": runtime["id"], "code": '{"source": "package"}'}
        function = self.post("/functions", data=form, files={"package": ("f.zip", platform.package())})
        body = {"function_id": function["id"], "pattern": "* * * * * *", "count": self.runs}
        jobs = [self.post("/jobs", json=body)["id"] for _ in range(10)]
        for number in (0, 1):
            platform.until(lambda number=number: self.left(jobs[0]) < self.runs - number, "ticks are made")
            engines[number].kill()
            engines[number].wait()
            self.engine(number)
        for number in (0, 1):
            self.runs_again(number, 2)
        for job in jobs:
            self.becomes(f"/jobs/{job}", "done")
        listed = self.api.get("/executions").json()["executions"]
        self.assertEqual({None}, {self.api.get(f"/jobs/{job}").json()["reason"] for job in jobs})
        counted = collections.Counter(each["description"] for each in listed)
        self.assertEqual({f"Created by Job {job}": self.runs for job in jobs}, dict(counted))
        self.assertEqual(10 * self.runs, self.api.get(f"/functions/{function['id']}").json()["count"])

    def left(self, job: str) -> int:
        return int(self.api.get(f"/jobs/{job}").json()["count"])

    def engine(self, number: int) -> subprocess.Popen[bytes]:
        # A state directory is one server's.
        return self.serve("engine", f"engine{number}", "--state-dir", str(self.home / f"e{number}"))

    def runs_again(self, number: int, times: int) -> None:
        log = self.home / f"engine{number}.log"
        platform.until(lambda: log.read_text().count(RUNNING) == times, "the engine runs", START)


class DyingEnginesOnMariaDBTests(DyingEnginesTests):
    database = "mariadb"
