"""What supervisor and handler say to each other over their socket pair.

A frame is a length (of what follows it) and fixed fields, packed, then bytes.  The handler side is not to
be believed: user code can write to its socket, so the supervisor checks every field that it uses.

Down, supervisor to handler: one call, ``CALL`` + execution id + input (JSON); or ``LEND``, with which the
descriptor of a client's connection comes, or ``RECALL``, which asks for it.
Up, handler to supervisor: one report, ``REPORT`` + result (JSON) + message (UTF-8).
"""

from __future__ import annotations

import struct

LENGTH = 4
"""Bytes of the length field; the length does not count them."""

CALL = struct.Struct("!IQB")
"""length, sequence, length of the execution id"""

REPORT = struct.Struct("!IQBBBdI")
"""length, sequence, kind, reason, flags, duration in seconds, length of the result"""

READY, SUCCESS, FAILURE, RETURNED, _TAKEN = range(5)
"""Kinds of a report: the import worked; the call with this sequence succeeded; it (or the import) failed; a
client's connection is given back, and the result is what was read from it."""

LEFT_PROCESSES = 1
"""Flag: the handler still has child processes."""
SPENT = 2
"""Flag: the handler cannot serve another call, its output is closed."""

IMPORTING = 0
"""The sequence of reports about the import; calls count from 1."""
DIRECT = 2**63
"""The sequence of reports about a call that the handler took from the client itself."""

_LEND, _RECALL = 0, 2**64 - 1

REASONS = (
    "",
    "function_raised",
    "import_failed",
    "entry_not_found",
    "bad_arguments",
    "result_not_json",
    "result_too_large",
    "memory_exceeded",
    "disk_full",
    "platform_error",
)
"""The reasons that a handler can report, by their number in the frame."""

MAX_MESSAGE = 2048
"""Bytes of a message at most; a longer one is cut."""
MAX_EXPLANATION = 64 * 1024
"""Bytes of the result of a failure at most, also where results of successes must be smaller."""


LEND = CALL.pack(CALL.size - LENGTH, _LEND, 0)
RECALL = CALL.pack(CALL.size - LENGTH, _RECALL, 0)


def is_lend(sequence: int) -> bool:
    return sequence == _LEND


def is_recall(sequence: int) -> bool:
    return sequence == _RECALL


def call(sequence: int, execution_id: bytes, body: bytes) -> bytes:
    """The frame of a call; the id has at most 255 bytes."""
    return CALL.pack(9 + len(execution_id) + len(body), sequence, len(execution_id)) + execution_id + body


def report(
    sequence: int,
    kind: int,
    result: bytes = b"",
    *,
    reason: str = "",
    message: str = "",
    duration: float = 0.0,
    flags: int = 0,
) -> bytes:
    """The frame of a report."""
    text = message.encode("utf-8", "replace")[:MAX_MESSAGE] if message else b""
    length = REPORT.size - LENGTH + len(result) + len(text)
    head = REPORT.pack(length, sequence, kind, REASONS.index(reason), flags, duration, len(result))
    return head + result + text


TAKEN = report(DIRECT, _TAKEN)
"""The report that the client's connection has come; the one that another may follow at once."""
