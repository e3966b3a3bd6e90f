"""Load: one request again and again on so many connections, by the same generator for every peer."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).parent


@dataclasses.dataclass(frozen=True)
class Request:
    """A POST, and what its answer must be."""

    url: str
    body: str
    headers: dict[str, str]
    status: int
    text: str  # must be in the answer's body


@dataclasses.dataclass(frozen=True)
class Sample:
    """One measurement.  Times in seconds."""

    connections: int
    requests: int
    seconds: float
    p50: float
    p99: float
    wrong: int  # answers that were not as they must be, and connections that broke

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds


class WrongAnswers(Exception):
    """A peer did not answer as it must, so that its speed means nothing."""


def generator() -> str:
    """The name of the load generator of this machine."""
    return "wrk" if shutil.which("wrk") else "own client (wrk is not installed)"


def run(request: Request, connections: int, seconds: float) -> Sample:
    """Load a peer.  Raises WrongAnswers."""
    command = _wrk(request, connections, seconds) if shutil.which("wrk") else _own(connections, seconds)
    done = subprocess.run(
        command,
        input=json.dumps(dataclasses.asdict(request)),
        capture_output=True,
        text=True,
        check=False,
        cwd=HERE.parent,
    )
    result = next((line for line in done.stdout.splitlines() if line.startswith("RESULT ")), None)
    if done.returncode != 0 or result is None:
        raise WrongAnswers(f"the load generator failed: {done.stdout}{done.stderr}")
    sample = Sample(connections, **json.loads(result.removeprefix("RESULT ")))
    if sample.wrong or not sample.requests:
        raise WrongAnswers(f"{sample.wrong} of {sample.requests} answers of {request.url} were wrong")
    return sample


def _wrk(request: Request, connections: int, seconds: float) -> list[str]:
    # wrk takes whole seconds.
    options = ["-t1", f"-c{connections}", f"-d{max(1, round(seconds))}", "--timeout=30"]
    headers = [f"{name}: {value}" for name, value in request.headers.items()]
    wanted = [str(request.status), request.text, request.body, *headers]
    return ["wrk", *options, "-s", str(HERE / "load.lua"), request.url, "--", *wanted]


def _own(connections: int, seconds: float) -> list[str]:
    return [sys.executable, "-m", "benchmarks.client", str(connections), str(seconds)]
