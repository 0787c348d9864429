"""Times between their text and UTC; a time that is not told for certain is refused, never guessed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from operator import attrgetter
from zoneinfo import ZoneInfo

import msgspec

from services.ingest.values import Fault
from shared.contracts.base import FieldError
from shared.errors import Invalid

OFFSET = re.compile(r"([+\- ])([0-9]{2}):?([0-9]{2})\Z")  # a + arrives as a space when a URL was not encoded
MAX_FORMAT = 100
_zone = attrgetter("tzinfo")
SOME_TIME = datetime(2024, 2, 29, 23, 59, 58, 123456, tzinfo=UTC)


@dataclass(frozen=True)
class Span:
    """Which times are accepted."""

    oldest: datetime
    newest: datetime

    def check(self, at: datetime) -> datetime:
        """The same moment in UTC; raises Fault."""
        if at < self.oldest:
            raise Fault("too_old", f"before {self.oldest:%Y-%m-%d}")
        if at > self.newest:
            raise Fault("too_new", "further in the future than this server accepts")
        return at.astimezone(UTC)


@dataclass(frozen=True)
class TimeReader:
    """Reads RFC 3339, or `format` (strptime); `zone` says what a time without an offset means."""

    span: Span
    zone: tzinfo | None = None
    format: str = ""

    def read(self, text: str) -> datetime:
        """The moment in UTC, rounded to microseconds; raises Fault."""
        at = self._parse(text)
        if at.tzinfo is not None:
            return self.span.check(at)
        if self.zone is None:
            raise Fault("no_offset", f"{text} has no offset: add one, or say how to read it with timezone")
        return self.span.check(certain(at, self.zone))

    def read_all(self, texts: Sequence[str]) -> list[datetime]:
        """What `read` makes of each; raises the Fault of one of them."""
        try:
            found = [] if self.format else msgspec.convert(texts, list[datetime])
        except ValueError:
            found = []
        zones = set(map(_zone, found))
        if not zones or None in zones or min(found) < self.span.oldest or max(found) > self.span.newest:
            return list(map(self.read, texts))
        return found if zones == {UTC} else [at.astimezone(UTC) for at in found]

    def _parse(self, text: str) -> datetime:
        try:
            return datetime.strptime(text, self.format) if self.format else msgspec.convert(text, datetime)
        except ValueError:  # msgspec's is one too
            wanted = f"of the form {self.format}" if self.format else "RFC 3339, as 2026-01-31T12:00:00Z"
            raise Fault("bad_time", f"{text[:40]!r} is not a time {wanted}") from None


def certain(local: datetime, zone: tzinfo) -> datetime:
    """A local time with its offset; raises Fault where clocks skipped or repeated it (PEP 495)."""
    if not 1900 <= local.year <= 9000:
        return local.replace(tzinfo=UTC)  # refused for its year, and offsets cannot overflow
    at = local.replace(tzinfo=zone)
    if at.utcoffset() == at.replace(fold=1).utcoffset():
        return at
    if at.astimezone(UTC).astimezone(zone).replace(tzinfo=None) != local:
        raise Fault("no_such_time", f"{local} does not exist in {zone}: clocks went forward over it")
    raise Fault("ambiguous_time", f"{local} was twice in {zone}: send it with its offset")


@dataclass(frozen=True)
class TimeWriter:
    """Writes RFC 3339 with microseconds, or `format` (strftime), in `zone` or in UTC."""

    zone: tzinfo | None = None
    format: str = ""

    def write(self, at: datetime) -> str:
        """The text of a moment."""
        local = at.astimezone(self.zone or UTC)
        if self.format:
            return local.strftime(self.format)
        text = local.isoformat(timespec="microseconds")
        return text if self.zone else text.removesuffix("+00:00") + "Z"


@lru_cache(maxsize=256)
def zone_of(text: str) -> tzinfo | None:
    """An IANA name or an offset; None for nothing; raises Invalid."""
    if not text:
        return None
    if text in ("UTC", "Z"):
        return UTC
    match = OFFSET.match(text)
    if match and int(match[2]) < 24 and int(match[3]) < 60:
        offset = timedelta(hours=int(match[2]), minutes=int(match[3]))
        return timezone(-offset if match[1] == "-" else offset)
    try:
        return ZoneInfo(text)
    except (KeyError, ValueError, OSError):
        raise _wrong("timezone", "unknown_timezone", f"{text[:60]!r} is no IANA name and no +hh:mm") from None


@lru_cache(maxsize=256)
def format_of(text: str) -> str:
    """A format that can be written and read back; raises Invalid."""
    try:
        if len(text) > MAX_FORMAT or (text and "%" not in text):
            raise ValueError
        if text:
            datetime.strptime(SOME_TIME.strftime(text), text)
    except (ValueError, re.error):
        message = f"{text[:60]!r} is no format of strptime, as %Y-%m-%d %H:%M"
        raise _wrong("time_format", "bad_time_format", message) from None
    return text


def _wrong(parameter: str, code: str, message: str) -> Invalid:
    return Invalid(message, errors=[FieldError(where="query", path=parameter, code=code, message=message)])
