"""Ticks of cron patterns, also where clocks are changed, and times that people write."""

from __future__ import annotations

import datetime
import warnings
import zoneinfo

import hypothesis
import testtools
from hypothesis import strategies as st

from funcplat import errors
from funcplat.core import crons
from funcplat.core.crons import SECOND

BERLIN, HOWE, HAVANA = "Europe/Berlin", "Australia/Lord_Howe", "America/Havana"
SETTINGS = hypothesis.settings(derandomize=True, database=None, deadline=None, max_examples=300)


def at(text: str) -> int:
    return int(datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.UTC).timestamp()) * SECOND


NOW = at("2026-11-23T10:00:00")


class CronTest(testtools.TestCase):
    def ticks(self, pattern: str, zone: str | None, after: str, count: int) -> list[str]:
        """The next ticks, as times of UTC without their date's year."""
        found, moment = [], at(after)
        for _ in range(count):
            tick = crons.next_tick(pattern, zone, moment)
            assert tick is not None and tick > moment
            moment = tick
            found.append(f"{datetime.datetime.fromtimestamp(tick // SECOND, datetime.UTC):%m-%dT%H:%M:%S}")
        return found


class PatternTests(CronTest):
    def test_five_fields_six_with_seconds_last_and_words(self) -> None:
        for pattern, expected in (
            ("*/20 * * * *", ["11-23T10:20:00", "11-23T10:40:00"]),
            ("0 9-17 * * mon-fri", ["11-23T11:00:00", "11-23T12:00:00"]),
            ("* * * * * */25", ["11-23T10:00:25", "11-23T10:00:50"]),
            ("@hourly", ["11-23T11:00:00", "11-23T12:00:00"]),
            ("@daily", ["11-24T00:00:00", "11-25T00:00:00"]),
            ("0 0 L * *", ["11-30T00:00:00", "12-31T00:00:00"]),
            ("0 0 * * fri#1", ["12-04T00:00:00", "01-01T00:00:00"]),
            ("0 0 13 * 5", ["11-27T00:00:00", "12-04T00:00:00"]),
        ):
            self.assertEqual(expected, self.ticks(pattern, None, "2026-11-23T10:00:00", 2), pattern)

    def test_a_tick_is_after_the_moment_that_is_asked_about(self) -> None:
        first = at("2026-11-23T10:05:00")
        for offset, expected in ((-1, 0), (0, 300), (1, 300), (SECOND - 1, 300)):
            tick = crons.next_tick("*/5 * * * *", None, first + offset)
            self.assertEqual(first + expected * SECOND, tick, offset)

    def test_a_pattern_may_have_no_tick_any_more(self) -> None:
        for pattern in ("0 0 30 2 *", "0 0 1 1 * 0 2026"):
            self.assertIsNone(crons.next_tick(pattern, BERLIN, NOW))

    def test_what_is_no_pattern_is_refused(self) -> None:
        for pattern in (
            "",
            "x",
            "* * * *",
            "61 * * * *",
            "@reboot",
            "R * * * *",
            "0 r(1-5) * * *",
            "H * * * *",
        ):
            self.assertRaises(errors.InvalidRequest, crons.check, pattern, None)
            self.assertRaises(errors.InvalidRequest, crons.next_tick, pattern, None, NOW)
        for zone in (
            "",
            "x",
            "../etc/passwd",
            "/etc/passwd",
            "Europe",
            "localtime",
            "Europe/Berlin\0",
            "x" * 65,
        ):
            self.assertRaises(errors.InvalidRequest, crons.check, "* * * * *", zone)

    @SETTINGS
    @hypothesis.given(st.text("0123456789*/,-#LWlRrHh ?@monfrijanT:+Z.", max_size=30) | st.text(max_size=20))
    def test_any_text_is_a_pattern_or_refused(self, text: str) -> None:
        for zone in (None, BERLIN):
            try:
                tick = crons.next_tick(text, zone, NOW)
            except errors.InvalidRequest:
                continue
            self.assertTrue(tick is None or tick > NOW)


class ForwardTests(CronTest):
    """Berlin: on 29 March 2026 02:00 becomes 03:00, at 01:00 UTC."""

    def test_a_tick_in_the_hour_that_is_left_out_comes_when_it_is_over(self) -> None:
        ticks = self.ticks("30 2 * * *", BERLIN, "2026-03-28T00:00:00", 3)
        self.assertEqual(["03-28T01:30:00", "03-29T01:00:00", "03-30T00:30:00"], ticks)

    def test_several_of_them_are_one(self) -> None:
        ticks = self.ticks("*/10 2 * * *", BERLIN, "2026-03-28T01:50:00", 2)
        self.assertEqual(["03-29T01:00:00", "03-30T00:00:00"], ticks)
        ticks = self.ticks("0 2,3 * * *", BERLIN, "2026-03-28T03:00:00", 2)
        self.assertEqual(["03-29T01:00:00", "03-30T00:00:00"], ticks)

    def test_what_runs_in_every_hour_goes_on_as_if_nothing_was(self) -> None:
        ticks = self.ticks("15,45 * * * *", BERLIN, "2026-03-29T00:00:00", 4)
        self.assertEqual(["03-29T00:15:00", "03-29T00:45:00", "03-29T01:15:00", "03-29T01:45:00"], ticks)

    def test_a_day_may_begin_an_hour_late(self) -> None:
        # Havana: on 8 March 2026 00:00 becomes 01:00, at 05:00 UTC.
        ticks = self.ticks("0 0 * * *", HAVANA, "2026-03-07T06:00:00", 2)
        self.assertEqual(["03-08T05:00:00", "03-09T04:00:00"], ticks)


class BackTests(CronTest):
    """Berlin: on 25 October 2026 03:00 becomes 02:00, at 01:00 UTC."""

    def test_a_pattern_that_names_hours_runs_in_the_first_of_two_equal_ones(self) -> None:
        ticks = self.ticks("30 2 * * *", BERLIN, "2026-10-24T12:00:00", 2)
        self.assertEqual(["10-25T00:30:00", "10-26T01:30:00"], ticks)
        ticks = self.ticks("*/30 2,3 * * *", BERLIN, "2026-10-24T12:00:00", 5)
        self.assertEqual(
            ["10-25T00:00:00", "10-25T00:30:00", "10-25T02:00:00", "10-25T02:30:00", "10-26T01:00:00"], ticks
        )

    def test_what_runs_in_every_hour_runs_in_both(self) -> None:
        ticks = self.ticks("30 * * * *", BERLIN, "2026-10-24T23:00:00", 4)
        self.assertEqual(["10-24T23:30:00", "10-25T00:30:00", "10-25T01:30:00", "10-25T02:30:00"], ticks)

    def test_the_end_of_the_repetition_is_found_from_within_it(self) -> None:
        ticks = self.ticks("* 2 * * * *", BERLIN, "2026-10-25T00:59:58", 2)
        self.assertEqual(["10-25T00:59:59", "10-26T01:00:00"], ticks)
        ticks = self.ticks("30 2 * * *", BERLIN, "2026-10-25T01:10:00", 1)
        self.assertEqual(["10-26T01:30:00"], ticks)

    def test_clocks_may_be_set_by_half_an_hour(self) -> None:
        # Lord Howe: on 5 April 2026 02:00 becomes 01:30, at 15:00 UTC of the 4th.
        ticks = self.ticks("*/20 * * * *", HOWE, "2026-04-04T14:20:00", 4)
        self.assertEqual(["04-04T14:40:00", "04-04T15:10:00", "04-04T15:30:00", "04-04T15:50:00"], ticks)
        ticks = self.ticks("45 1 * * *", HOWE, "2026-04-04T00:00:00", 2)
        self.assertEqual(["04-04T14:45:00", "04-05T15:15:00"], ticks)

    def test_a_midnight_that_comes_twice_is_one_tick(self) -> None:
        # Havana: on 1 November 2026 01:00 becomes 00:00, at 05:00 UTC.
        ticks = self.ticks("0 0 * * *", HAVANA, "2026-10-31T12:00:00", 2)
        self.assertEqual(["11-01T04:00:00", "11-02T05:00:00"], ticks)


class EveryMinuteTests(CronTest):
    @SETTINGS
    @hypothesis.given(
        st.sampled_from([BERLIN, HOWE, HAVANA, "America/New_York", "Asia/Kolkata", "Africa/Casablanca"]),
        st.datetimes(datetime.datetime(2024, 1, 1), datetime.datetime(2028, 1, 1)),
    )
    def test_every_minute_is_every_minute_in_every_zone(self, zone: str, moment: datetime.datetime) -> None:
        after = int(moment.replace(tzinfo=datetime.UTC, microsecond=0).timestamp()) * SECOND
        minute = 60 * SECOND
        self.assertEqual(after - after % minute + minute, crons.next_tick("* * * * *", zone, after))

    @SETTINGS
    @hypothesis.given(
        st.sampled_from([BERLIN, HOWE, HAVANA, "America/New_York"]),
        st.integers(0, 23),
        st.integers(0, 59),
        st.datetimes(datetime.datetime(2024, 1, 1), datetime.datetime(2028, 1, 1)),
    )
    def test_a_daily_tick_comes_once_on_each_day(
        self, zone: str, hour: int, minute: int, moment: datetime.datetime
    ) -> None:
        after = int(moment.replace(tzinfo=datetime.UTC, microsecond=0).timestamp()) * SECOND
        days = []
        for _ in range(5):
            tick = crons.next_tick(f"{minute} {hour} * * *", zone, after)
            assert tick is not None
            local = datetime.datetime.fromtimestamp(tick // SECOND, zoneinfo.ZoneInfo(zone))
            days.append(local.date().toordinal())
            after = tick
        self.assertEqual(list(range(days[0], days[0] + 5)), days)


class TimeTests(testtools.TestCase):
    def time(self, text: str, zone: str | None = None) -> str:
        micros = crons.time_of("t", text, zone, NOW)
        return f"{datetime.datetime.fromtimestamp(micros // SECOND, datetime.UTC):%Y-%m-%dT%H:%M:%S}"

    def test_without_a_zone_all_is_utc_as_the_old_server_has_it(self) -> None:
        for text in (
            "2030-01-31T12:00:00",
            "2030-01-31 12:00:00.5",
            "2030-01-31T12:00:00Z",
            "Jan 31 2030 12:00",
        ):
            self.assertEqual("2030-01-31T12:00:00", self.time(text))
        self.assertEqual("2030-01-31T12:00:00", self.time("2030-01-31T12:00:00+05:00"))
        self.assertEqual("2026-11-23T23:30:00", self.time("23:30"))

    def test_with_a_zone_it_is_of_that_one_unless_it_says_another(self) -> None:
        self.assertEqual("2030-01-31T11:00:00", self.time("2030-01-31T12:00:00", BERLIN))
        self.assertEqual("2030-01-31T12:00:00", self.time("2030-01-31T12:00:00Z", BERLIN))
        self.assertEqual("2030-01-31T07:00:00", self.time("2030-01-31T12:00:00+05:00", BERLIN))

    def test_what_is_no_time_is_refused(self) -> None:
        for text in ("", "x", "2030-13-01", "99999999999999999999", "2030-01-31 12:00 EST", "9999-12-31"):
            self.assertRaises(errors.InvalidRequest, self.time, text, BERLIN)

    @SETTINGS
    @hypothesis.given(st.text("0123456789-:/ TZ+.,apmjanutc", max_size=25) | st.text(max_size=20))
    def test_any_text_is_a_time_or_refused(self, text: str) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for zone in (None, BERLIN):
                try:
                    crons.time_of("t", text, zone, NOW)
                except errors.InvalidRequest:
                    continue
