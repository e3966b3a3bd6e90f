"""Why a container ended, as far as the Engine knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from funcplat.drivers.docker import containers, deadlines, engine

KEPT_EVENTS = 256
"""So many events an Engine keeps, in its memory: fewer, and it has forgotten none since it started."""
_KILLED = 137  # 128 + SIGKILL
_STOPPED = (0, _KILLED, 143, 255)
"""Exit codes that a container has when an Engine ended it as it stopped, or lost sight of it."""


def explain(docker: engine.Engine, container: containers.Container, deadline: deadlines.Deadline) -> str:
    """A sentence for people.  Raises DriverError."""
    if container.state == "created":
        return "it was never started"
    try:
        state = docker.call("GET", f"/containers/{container.id}/json", deadline)["State"]
    except engine.Refused as error:
        if error.status == 404:
            return "it was removed"
        raise
    events = docker.events(deadline)
    own = [event for event in events if event.get("Actor", {}).get("ID") == container.id]
    return sentence(state, own, complete=len(events) < KEPT_EVENTS)


def sentence(state: Mapping[str, Any], events: Sequence[Mapping[str, Any]], complete: bool) -> str:
    """From a container's state and the Engine's events of it; ``complete``: all since the Engine started.

    The state alone is not enough: its mark of a lack of memory stays from an earlier one that the container
    survived.
    """
    code = state["ExitCode"]
    if state.get("Error"):
        return f"it could not go on: {state['Error']}"
    actions = [event["Action"] for event in events]
    if code in _STOPPED and complete and "start" not in actions:
        return "the Docker Engine was restarted, which ended it"
    if code != _KILLED:
        return f"it exited with code {code}"
    if "kill" in actions:
        return "it was killed by a request to the Docker Engine"
    if state.get("OOMKilled"):
        return "the kernel killed it, out of memory"
    return "it was killed (SIGKILL), by nobody that the Docker Engine knows of"
