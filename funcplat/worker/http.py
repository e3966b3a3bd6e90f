"""The subset of HTTP/1.1 that workers speak; see the page "The worker protocol"."""

from __future__ import annotations

import math
import re

MAX_HEAD = 8 * 1024
"""Bytes of request line and headers, with the empty line after them."""
MAX_INPUT = 16 * 1024 * 1024
"""Bytes of an /invoke body."""
MAX_LOAD = 64 * 1024 * 1024 + 1024 * 1024
"""Bytes of a /load body: a package and the line before it."""
MAX_QUOTED = 6 * 1024
"""Bytes of an x-message, so that the head of an answer stays below MAX_HEAD, too."""

Head = tuple[bytes, dict[bytes, bytes], int]
"""Request line without the version, headers by lower-case name, length of the body."""

_PHRASES = {
    200: b"OK",
    400: b"Bad Request",
    403: b"Forbidden",
    404: b"Not Found",
    405: b"Method Not Allowed",
    409: b"Conflict",
    413: b"Content Too Large",
    429: b"Too Many Requests",
    503: b"Service Unavailable",
}
_INVOKE = b"POST /invoke HTTP/1.1"
_LENGTH_DIGITS = 10
_LINE = re.compile(rb"(?:GET|POST) /[!-~]* HTTP/1\.1")
_NAME = re.compile(rb"[a-z0-9!#$%&'*+.^_`|~-]+")
_USUAL = frozenset((b"host", b"content-length", b"x-secret", b"x-execution", b"x-timeout"))
_ALLOWED = bytes((9, 10, 13, *range(32, 127)))
_FORBIDDEN = frozenset((b"transfer-encoding", b"expect", b"upgrade"))
_UNSAFE = re.compile(rb"[^!-$&-~ ]")
_LONGEST_QUOTED = 12  # bytes of a character: four escapes


class BadRequest(Exception):
    """The request breaks the rules of the protocol."""


def parse(head: bytes) -> Head:
    """Parse all before the empty line; raises BadRequest that says what is wrong."""
    # PERF: whole-head tests in C and a set of usual names: 3 us instead of 9 for a regular expression a line.
    lines = head.split(b"\r\n")
    line = lines[0]
    count = len(lines) - 1
    if line != _INVOKE and _LINE.fullmatch(line) is None:
        raise BadRequest("the request line is not: GET or POST, a path, HTTP/1.1")
    if head.translate(None, _ALLOWED) or not head.count(b"\n") == head.count(b"\r") == count:
        raise BadRequest("the head has bytes other than printable ASCII, or lines that do not end in CR LF")
    headers = {}
    for entry in lines[1:]:
        name, colon, value = entry.partition(b":")
        if not colon or (name not in _USUAL and _NAME.fullmatch(name) is None):
            raise BadRequest("a header line is malformed, or its name is not lower case")
        headers[name] = value.strip()
    if len(headers) != count:
        raise BadRequest("a header comes twice")
    if not _FORBIDDEN.isdisjoint(headers):
        raise BadRequest("transfer-encoding, expect and upgrade are not part of the protocol")
    length = headers.get(b"content-length", b"")
    if not length.isdigit() or len(length) > _LENGTH_DIGITS:
        raise BadRequest("content-length is missing or not a number")
    return line[:-9], headers, int(length)


def answer(status: int, body: bytes = b"", headers: bytes = b"") -> bytes:
    """A whole answer; ``headers`` are complete lines."""
    return b"HTTP/1.1 %d %b\r\ncontent-length: %d\r\n%b\r\n%b" % (
        status,
        _PHRASES[status],
        len(body),
        headers,
        body,
    )


def success(result: bytes, log: bytes, duration: float) -> bytes:
    """The answer to an execution that succeeded without remark."""
    # PERF: one formatting instead of answer() with a list of headers: 1 us less in every call.
    return (
        b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nx-secret: known\r\nx-status: success\r\n"
        b"x-duration: %.6f\r\nx-result-length: %d\r\n\r\n%b%b"
        % (len(result) + len(log), duration, len(result), result, log)
    )


def remarked(
    status: bytes,
    result: bytes,
    log: bytes,
    duration: float,
    reason: str,
    message: str,
    dropped: int,
) -> bytes:
    """The answer to an execution about which there is something to say."""
    headers = b"x-secret: known\r\nx-status: %b\r\nx-duration: %.6f\r\nx-result-length: %d\r\n" % (
        status,
        duration,
        len(result),
    )
    if reason:
        headers += b"x-reason: %b\r\nx-message: %b\r\n" % (reason.encode("ascii"), quote(message))
    if dropped:
        headers += b"x-log-dropped: %d\r\n" % dropped
    return answer(200, b"%b%b" % (result, log), headers)


def quote(text: str) -> bytes:
    """Percent-encoded UTF-8, cut to `MAX_QUOTED`: printable ASCII stays, except the percent sign."""
    text = text[:MAX_QUOTED]
    while len(quoted := _UNSAFE.sub(_escape, text.encode("utf-8", "replace"))) > MAX_QUOTED:
        # By characters, so that what is left is UTF-8.
        text = text[: -math.ceil((len(quoted) - MAX_QUOTED) / _LONGEST_QUOTED)]
    return quoted


def _escape(match: re.Match[bytes]) -> bytes:
    return b"%%%02X" % match[0][0]
