"""Times are read for certain or refused; what is written reads back the same."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingest.times import Span, TimeReader, TimeWriter, format_of, zone_of
from services.ingest.values import Fault
from shared.errors import Invalid

SPAN = Span(datetime(2000, 1, 1, tzinfo=UTC), datetime(2026, 11, 21, tzinfo=UTC))
moments = st.datetimes(datetime(2000, 1, 1), datetime(2026, 11, 20)).map(lambda at: at.replace(tzinfo=UTC))


def read(text: str, zone: str = "", form: str = "") -> datetime:
    return TimeReader(SPAN, zone_of(zone), format_of(form)).read(text)


def refused(text: str, zone: str = "", form: str = "") -> str:
    with pytest.raises(Fault) as fault:
        read(text, zone, form)
    return fault.value.code


def test_an_offset_is_taken_into_account() -> None:
    assert read("2026-01-31T12:00:00+02:00") == datetime(2026, 1, 31, 10, tzinfo=UTC)
    assert read("2026-01-31T12:00:00.123456Z") == datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=UTC)


def test_a_time_without_offset_needs_a_timezone() -> None:
    assert refused("2026-01-31T12:00:00") == "no_offset"
    assert read("2026-01-31T12:00:00", "Europe/Berlin") == datetime(2026, 1, 31, 11, tzinfo=UTC)
    assert read("2026-07-31T12:00:00", "Europe/Berlin") == datetime(2026, 7, 31, 10, tzinfo=UTC)
    assert read("2026-07-31T12:00:00", "-08:30") == datetime(2026, 7, 31, 20, 30, tzinfo=UTC)


def test_an_offset_in_the_text_wins_over_the_timezone() -> None:
    assert read("2026-01-31T12:00:00Z", "Europe/Berlin") == datetime(2026, 1, 31, 12, tzinfo=UTC)


def test_a_local_time_that_clocks_skipped_is_refused_not_moved() -> None:
    assert refused("2010/03/14 02:30", "America/Los_Angeles", "%Y/%m/%d %H:%M") == "no_such_time"
    assert read("2010/03/14 03:00", "America/Los_Angeles", "%Y/%m/%d %H:%M").hour == 10
    assert read("2010/03/14 01:59", "America/Los_Angeles", "%Y/%m/%d %H:%M").hour == 9


def test_a_local_time_that_was_twice_is_refused_not_guessed() -> None:
    assert refused("2010/11/07 01:30", "America/Los_Angeles", "%Y/%m/%d %H:%M") == "ambiguous_time"
    assert read("2010/11/07 01:30", "-08:00", "%Y/%m/%d %H:%M").hour == 9


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("1999-12-31T23:59:59Z", "too_old"),
        ("0001-01-01T00:00:00+23:59", "too_old"),
        ("9999-12-31T23:59:59-23:59", "too_new"),
        ("2026-11-21T00:00:01Z", "too_new"),
        ("yesterday", "bad_time"),
        ("2026-02-30T00:00:00Z", "bad_time"),
        ("2026-02-28", "bad_time"),
        ("", "bad_time"),
    ],
)
def test_which_times_are_refused(text: str, code: str) -> None:
    assert refused(text) == code


def test_local_times_at_the_ends_of_the_calendar_are_refused_too() -> None:
    assert refused("0001-01-01T00:00:00", "Europe/Berlin") == "too_old"
    assert refused("9999-12-31T23:59:59", "America/New_York") == "too_new"


@pytest.mark.parametrize("zone", ["Mars/Olympus", "America", "../etc/passwd", "+25:00", "\0", "x" * 5000])
def test_an_unknown_timezone_is_named(zone: str) -> None:
    with pytest.raises(Invalid) as refusal:
        zone_of(zone)
    assert refusal.value.errors[0].path == "timezone"


@pytest.mark.parametrize("form", ["%Q", "no directive", "%", "%Y" * 60])
def test_a_format_that_cannot_be_read_back_is_named(form: str) -> None:
    with pytest.raises(Invalid) as refusal:
        format_of(form)
    assert refusal.value.errors[0].path == "time_format"


def test_a_plus_that_became_a_space_on_its_way_is_a_plus() -> None:
    assert zone_of(" 02:00") == timezone(timedelta(hours=2))


@given(moments, st.sampled_from(["", "UTC", "+05:45", "-08:00", "Europe/Berlin", "America/Los_Angeles"]))
def test_a_written_time_reads_back(at: datetime, zone: str) -> None:
    assert read(TimeWriter(zone_of(zone)).write(at), zone) == at


@given(moments.map(lambda at: at.replace(second=0, microsecond=0)), st.sampled_from(["UTC", "+05:45"]))
def test_a_time_in_a_format_reads_back(at: datetime, zone: str) -> None:
    form = "%Y/%m/%d %H:%M"
    assert read(TimeWriter(zone_of(zone), form).write(at), zone, form) == at
