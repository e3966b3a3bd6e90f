"""Times of jobs: cron patterns in time zones, and times that people write.

The syntax is croniter's, as the old API has it: five fields, a sixth for seconds, a seventh for years, and
words such as ``@hourly``.  Where clocks are set forward, a tick in the hour that is left out comes when that
hour is over, once.  Where they are set back, a pattern that names hours has its tick in the first of the two
equal hours, and one that runs in every hour has it in both.
"""

from __future__ import annotations

import datetime
import re
import zoneinfo

import croniter
import dateutil.parser

from funcplat import errors

SECOND = 1_000_000
MINUTE = 60 * SECOND
UTC = "UTC"
MAX_PATTERN = 255
MAX_ZONE = 64
MAX_YEAR = 9000
"""Of times that are given: what comes after them must be a time, too."""
_STEP = 12 * 3600 * SECOND
"""Shorter than what lies between two changes of the clocks."""
_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*")
# Fields of random values: what another process computes must be the same.
_RANDOM = re.compile(r"(?:^|[\s,])r(?![a-z])", re.IGNORECASE)
# What the libraries raise for texts that nobody thought of, beside their own errors (which are ValueErrors).
_UNREADABLE = (ValueError, OverflowError, TypeError, AttributeError, LookupError, ArithmeticError)


def check(pattern: str, zone: str | None) -> None:
    """Raise InvalidRequest for a pattern or a time zone that cannot be used."""
    tzinfo(zone)
    _hours(pattern)


def next_tick(pattern: str, zone: str | None, after: int) -> int | None:
    """The first tick after ``after``, both in microseconds since the epoch; None where there is none.

    Raises InvalidRequest for a pattern or a time zone that cannot be used.
    """
    where, every_hour = tzinfo(zone), _hours(pattern)
    start = after - after % SECOND
    if not every_hour:
        start = _past_repetition(start, where)
    offset = _offset_at(start, where)
    while True:
        # Between two changes of the clocks local time is as regular as UTC.
        tick = _regular(pattern, start, offset)
        change = None if tick is None else _change(start, tick, offset, where)
        if tick is None or change is None:
            return tick
        shift = _offset_at(change, where) - offset
        if tick < change + shift and not every_hour:
            return change  # it is in the hour that is left out, which is over now
        start, offset = change - SECOND, offset + shift
        if shift < 0 and not every_hour:
            start -= shift  # the hour that comes again had its ticks


def tzinfo(zone: str | None) -> datetime.tzinfo:
    """The time zone of an IANA name, UTC for None.  Raises InvalidRequest."""
    if zone is None or zone == UTC:
        return datetime.UTC
    unknown = errors.InvalidRequest(
        f"time_zone {zone[:64]!r} is not the name of a time zone, such as Europe/Berlin."
    )
    # What "localtime" means is another thing on each machine.
    if not _ZONE.fullmatch(zone) or len(zone) > MAX_ZONE or zone in ("localtime", "Factory"):
        raise unknown
    try:
        return zoneinfo.ZoneInfo(zone)
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError) as error:
        raise unknown from error


def time_of(name: str, text: str, zone: str | None, now: int) -> int:
    """A time that somebody wrote, in whole seconds; what is left out is today's, by ``now``.

    Without a time zone all is UTC and an offset in the text is not looked at, as the old server has it.  With
    one the text is of that zone, unless it has an offset.  Raises InvalidRequest.
    """
    where = tzinfo(zone)
    today = _at(now, where).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
    unreadable = errors.InvalidRequest(
        f"{name} cannot be read as a time: {text[:64]!r}; write it like 2030-01-31T12:00:00."
    )
    try:
        if zone is None:
            parsed = dateutil.parser.parse(text, default=today, ignoretz=True)
        else:
            parsed = dateutil.parser.parse(text, default=today, tzinfos=_offset)
        if parsed.tzinfo is None:
            parsed = parsed.replace(tzinfo=where)
        micros = int(parsed.timestamp()) * SECOND
    except _UNREADABLE as error:
        raise unreadable from error
    if parsed.year > MAX_YEAR:
        raise unreadable
    return micros


def _offset(name: str | None, offset: int | None) -> int | None:
    if name in ("UTC", "GMT", "Z"):
        return 0
    if name is not None and offset is None:
        raise ValueError(f"{name} may be several time zones")
    return offset


def _hours(pattern: str) -> bool:
    """Whether the pattern has ticks in every hour of its days.  Raises InvalidRequest."""
    if len(pattern) > MAX_PATTERN or _RANDOM.search(pattern):
        raise _bad(pattern, ValueError("it is too long, or random"))
    try:
        fields, _ = croniter.croniter.expand(pattern)
        return bool(fields[1] == ["*"])
    except _UNREADABLE as error:
        raise _bad(pattern, error) from error


def _regular(pattern: str, after: int, offset: int) -> int | None:
    """The next tick where local time is ``offset`` ahead of UTC for ever."""
    try:
        local = _at(after + offset, datetime.UTC).replace(tzinfo=None)
        tick = croniter.croniter(pattern, local).get_next(datetime.datetime)
        return int(tick.replace(tzinfo=datetime.UTC).timestamp()) * SECOND - offset
    except croniter.CroniterBadDateError:
        return None
    except _UNREADABLE as error:
        raise _bad(pattern, error) from error


def _change(after: int, until: int, offset: int, where: datetime.tzinfo) -> int | None:
    """The first moment in (after, until] with another offset than this; None where there is none."""
    if where is datetime.UTC:
        return None
    low = after
    while low < until:
        high = min(low + _STEP, until)
        if _offset_at(high, where) != offset:
            return _bisected(low, high, where)
        low = high
    return None


def _past_repetition(micros: int, where: datetime.tzinfo) -> int:
    """The last second of the local time that was once before; ``micros`` where it was not."""
    end = micros
    while _at(end, where).fold:
        end += MINUTE - end % MINUTE
    return micros if end == micros else end - SECOND


def _bisected(low: int, high: int, where: datetime.tzinfo) -> int:
    """``low`` has another offset than ``high``: the moment from which on it is that of ``high``."""
    wanted = _offset_at(high, where)
    while high - low > SECOND:
        middle = (low + high) // 2 // SECOND * SECOND
        if _offset_at(middle, where) == wanted:
            high = middle
        else:
            low = middle
    return high


def _offset_at(micros: int, where: datetime.tzinfo) -> int:
    offset = _at(micros, where).utcoffset()
    assert offset is not None
    return int(offset.total_seconds()) * SECOND


def _at(micros: int, where: datetime.tzinfo) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(micros // SECOND, where)


def _bad(pattern: str, error: Exception) -> errors.InvalidRequest:
    return errors.InvalidRequest(
        f"pattern {pattern[:64]!r} is not a cron pattern of five fields, or six with seconds last: "
        f"{str(error)[:200]}"
    )
