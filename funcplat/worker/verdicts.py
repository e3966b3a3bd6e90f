"""What became of an execution, and how that is told.  Pure.

``result`` is a text for people which keeps the strings that clients of the API know; ``reason`` is one of the
codes in the documentation, ``message`` says what happened, which limit it was and what to do.
"""

from __future__ import annotations

import dataclasses
import json
import signal

TIMEOUT_TEXT = "Function execution timeout."
RESOURCES_TEXT = "Function execution failed because of too much resource consumption"


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """The end of an execution about which there is something to say."""

    success: bool
    result: bytes  # JSON
    reason: str
    message: str

    @classmethod
    def failed(cls, text: str, reason: str, message: str) -> Outcome:
        return cls(False, json.dumps(text).encode("ascii"), reason, message)


@dataclasses.dataclass(frozen=True, slots=True)
class Death:
    """How a handler process ended, and what the kernel counted while its execution ran."""

    signal: int = 0  # 0: it exited
    exit_code: int = 0
    importing: bool = False
    oom_killed: bool = False
    pids_refused: bool = False


def timed_out(timeout: float) -> Outcome:
    return Outcome.failed(
        TIMEOUT_TEXT,
        "timeout",
        f"The execution ran into its timeout of {timeout:g} seconds and was killed. "
        "Make the function faster or raise its timeout.",
    )


def cancelled() -> Outcome:
    return Outcome.failed("Function execution cancelled.", "cancelled", "It was cancelled while it ran.")


def import_timed_out(timeout: float, entry: str) -> Outcome:
    return Outcome.failed(
        f"Importing the function's module took longer than {timeout:g} seconds.",
        "import_timeout",
        f"The import of the module of {entry!r} was killed after {timeout:g} seconds, the operator's limit. "
        "Do less work at module level.",
    )


def died(death: Death) -> Outcome:
    """What a handler's end means for the execution in it."""
    when = "while its module was imported" if death.importing else "during the execution"
    if death.signal == signal.SIGKILL and death.oom_killed:
        return Outcome.failed(
            RESOURCES_TEXT,
            "memory_exceeded",
            "The worker reached its memory limit, the function's memory_size, and the kernel killed the "
            f"function {when}. Executions in the same worker share the limit and may end together. "
            "Use less memory or raise memory_size.",
        )
    if death.pids_refused:
        return too_many_processes(f"The function's process ended {when} ({_how(death)}).")
    if death.signal:
        return Outcome.failed(
            RESOURCES_TEXT,  # what the old wire says of every process that ended; the reason tells the truth
            "function_crashed",
            f"The function's process was {_how(death)} {when}.",
        )
    return Outcome.failed(
        RESOURCES_TEXT,
        "function_exited",
        f"The function ended its process {when} with exit code {death.exit_code} instead of returning.",
    )


def too_many_processes(end: str) -> Outcome:
    return Outcome.failed(RESOURCES_TEXT, "pids_exceeded", _pids_message(end))


def with_pids_refused(outcome: Outcome) -> Outcome:
    """The same end, during which the kernel refused to make processes or threads."""
    return dataclasses.replace(outcome, reason="pids_exceeded", message=_pids_message(outcome.message))


def with_oom_kill(outcome: Outcome) -> Outcome:
    """The same end, during which the kernel killed a process of the worker for its memory."""
    return dataclasses.replace(
        outcome,
        reason="memory_exceeded",
        message="The worker reached its memory limit, the function's memory_size, and the kernel killed a "
        f"process in it. {outcome.message} Use less memory or raise memory_size.",
    )


def hijacked(what: str) -> Outcome:
    """The handler broke the rules between it and the supervisor, which only user code can make it do."""
    return Outcome.failed(
        "The function broke the process that it runs in.",
        "function_crashed",
        f"The function {what}; its process was killed.",
    )


def not_started(error: OSError, pids_refused: bool) -> Outcome:
    """No handler process could be made."""
    if pids_refused or isinstance(error, BlockingIOError):
        return too_many_processes(f"No process could be started for the function ({error.strerror}).")
    return Outcome.failed(
        "Function execution failed.",
        "platform_error",
        f"No process could be started for the function: {error.strerror}.",
    )


def remark(left_processes: bool, dropped: int, cap: int) -> tuple[str, str]:
    """Reason and message for an execution that ended of itself; empty where there is nothing to say."""
    if left_processes:
        return (
            "processes_killed",
            "The function left processes behind, which were killed. Wait for them before you return.",
        )
    if dropped:
        return "log_truncated", f"The log keeps the first {cap} bytes of output; {dropped} more were dropped."
    return "", ""


def _pids_message(end: str) -> str:
    return (
        "The worker reached its limit of processes and threads, and the kernel refused to make more. "
        f"{end} Use fewer of them, or ask the operator to raise the limit."
    )


def _how(death: Death) -> str:
    if not death.signal:
        return f"exit code {death.exit_code}"
    try:
        return f"killed by signal {death.signal} ({signal.Signals(death.signal).name})"
    except ValueError:  # a real-time signal
        return f"killed by signal {death.signal}"
