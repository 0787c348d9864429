"""Which readings a page shows: the last hours or days, all of them, or from one time to another."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from urllib.parse import urlencode

from services.gateway.http.answers import time_text
from services.gateway.http.validate import read_time, zone_of

LENGTHS = {
    "1h": timedelta(hours=1),
    "24h": timedelta(hours=24),
    "7d": timedelta(days=7),
    "30d": timedelta(days=30),
}
WORDS = {"1h": "1 hour", "24h": "24 hours", "7d": "7 days", "30d": "30 days", "all": "All"}
_NO_SECONDS = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d", re.ASCII)
_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


class Range(NamedTuple):
    """start <= at < end; `name` is one of WORDS or `between`; `wrong` says by field what is no time."""

    name: str
    start: datetime | None
    end: datetime | None
    wrong: dict[str, str] = {}  # noqa: RUF012 (never changed)

    @property
    def query(self) -> str:
        """As the query of a page."""
        if self.name != "between":
            return urlencode({"range": self.name})
        return urlencode(self.times)

    @property
    def times(self) -> dict[str, str]:
        """As parameters of the API."""
        moments = {"start": self.start, "end": self.end}
        return {name: time_text(moment) for name, moment in moments.items() if moment is not None}


def read_range(query: Mapping[str, str], last: datetime | None, now: datetime) -> Range:
    """What a page was asked for; without a wish, the shortest range that shows the last reading."""
    given = {name: query.get(name, "").strip() for name in ("start", "end")}
    if any(given.values()):
        return _between(given, query.get("timezone", ""))
    name = query.get("range", "")
    if name not in WORDS:
        name = _fitting(last, now)
    length = LENGTHS.get(name)
    return Range(name, None if length is None else now - length, None)


def _fitting(last: datetime | None, now: datetime) -> str:
    if last is None:
        return "24h"
    return next((name for name, length in LENGTHS.items() if name != "1h" and now - last < length), "all")


def _between(given: Mapping[str, str], timezone: str) -> Range:
    wrong: dict[str, str] = {}
    found: dict[str, datetime | None] = {"start": None, "end": None}
    for name, text in given.items():
        try:
            found[name] = moment(text, timezone) if text else None
        except ValueError:
            wrong[name] = "Write a time like 2026-01-31 12:00."
    start, end = found["start"], found["end"]
    if start and end and start >= end:
        wrong["end"] = "The end is not after the start."
    return Range("between", start, end, wrong)


def moment(text: str, timezone: str = "") -> datetime:
    """A time as people and browsers write it, without an offset in that zone (UTC); raises ValueError."""
    if _DAY.fullmatch(text):
        text += "T00:00"
    if _NO_SECONDS.fullmatch(text):
        text += ":00"
    return read_time(text, zone_of(timezone) or UTC)
