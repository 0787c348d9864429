"""Rows as clients read them: JSON structures, lines of NDJSON and CSV, the cursor between two pages."""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import msgspec

from services.ingest.rules import HAS_ELEVATION, HAS_POSITION, HAS_STATUS, Known, selected
from services.ingest.times import TimeWriter, format_of, zone_of
from services.ingest.values import Stored, Value, quoted, text_to_csv, to_csv, value_of
from shared.contracts.base import FieldError
from shared.contracts.ingest import ExportReadings, Reading, Variable
from shared.errors import Invalid

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
_CURSOR = struct.Struct(">qq")
ABSENT: Any = object()


def value_at(row: Mapping[str, Any], field: int) -> Any:
    """The value of a field of a row, ABSENT when the reading has none."""
    numbers, exact = row["numbers"], row["exact"]
    text = exact[field - 1] if exact and field <= len(exact) else None
    number = numbers[field - 1] if numbers and field <= len(numbers) else None
    if text is None and number is None:
        return ABSENT
    return value_of(number, bool(row["whole"] >> (field - 1) & 1), text)


def reading_of(row: Mapping[str, Any], variables: Sequence[Variable]) -> Reading:
    """A row as it is answered, with the values of these variables."""
    values: dict[str, Value] = {}
    for variable in variables:
        value = value_at(row, variable.field)
        if value is not ABSENT:
            values[variable.tag] = value
    latitude, longitude, elevation = row["place"] or (None, None, None)
    return Reading(
        entry=row["entry"],
        at=row["at"],
        values=values,
        status=row["status"],
        latitude=latitude,
        longitude=longitude,
        elevation=elevation,
    )


@dataclass(frozen=True)
class Cursor:
    """Where a page ended."""

    at: datetime
    entry: int

    def text(self) -> str:
        """An opaque text for the client."""
        raw = _CURSOR.pack((self.at - EPOCH) // MICROSECOND, self.entry)
        return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()

    @classmethod
    def read(cls, text: str) -> Cursor:
        """The cursor a client sent back; raises Invalid."""
        try:
            microseconds, entry = _CURSOR.unpack(base64.urlsafe_b64decode(text + "=="))
            return cls(EPOCH + microseconds * MICROSECOND, entry)
        except (ValueError, binascii.Error, struct.error, OverflowError):
            raise bad_cursor() from None


def number_cursor(number: int) -> str:
    """The cursor of a list that is in order of a number."""
    return base64.urlsafe_b64encode(number.to_bytes(4)).rstrip(b"=").decode()


def number_of(cursor: str) -> int:
    """The number in a cursor; raises Invalid."""
    try:
        raw = base64.urlsafe_b64decode(cursor + "==")
    except (ValueError, binascii.Error):
        raise bad_cursor() from None
    number = int.from_bytes(raw)
    if len(raw) != 4 or number >= 2**31:
        raise bad_cursor()
    return number


def bad_cursor() -> Invalid:
    """The refusal of a cursor that is none of ours."""
    message = "not a cursor that `next` gave"
    return Invalid(
        message, errors=[FieldError(where="query", path="after", code="bad_cursor", message=message)]
    )


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """What a line has after its time, in this order; `parts` are status and coordinates."""

    format: Literal["csv", "ndjson"]
    variables: tuple[Variable, ...]
    parts: tuple[str, ...] = ()


PLACE = ("latitude", "longitude", "elevation")
RowPrinter = Callable[[Mapping[str, Any]], str]


@dataclass(frozen=True)
class Printer:
    """Prints an export: `head` first, then every row.

    `layout` says it to the database, which prints the same at less cost; None when times are to be written
    in a form of the client's.
    """

    head: str
    row: RowPrinter
    layout: Layout | None


def printer(known: Known, asked: ExportReadings) -> Printer:
    """How an export is to be printed; raises Invalid for options that make no sense."""
    times = TimeWriter(zone_of(asked.timezone), format_of(asked.time_format))
    variables = selected(known, asked.variables)
    if asked.format == "ndjson":
        plain = TimeWriter(times.zone)
        layout = None if times.zone else Layout(format="ndjson", variables=variables)
        return Printer("", lambda row: _line(reading_of(row, variables), plain), layout)
    return _csv_printer(known, asked, times, variables)


class _Line(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A `Reading` whose time is a text."""

    entry: int
    at: str
    values: dict[str, Value]
    status: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    elevation: float | None = None


def _line(reading: Reading, times: TimeWriter) -> str:
    line = _Line(**msgspec.structs.asdict(reading) | {"at": times.write(reading.at)})
    return msgspec.json.encode(line).decode() + "\n"


def _csv_printer(
    known: Known, asked: ExportReadings, times: TimeWriter, variables: tuple[Variable, ...]
) -> Printer:
    time_column = asked.time_column or "at"
    parts = [] if asked.variables else _parts(known)
    names = [time_column, *(variable.tag for variable in variables), *parts]
    if len(set(names)) < len(names):
        message = f"{time_column} is the name of another column"
        error = FieldError(where="query", path="time_column", code="column_twice", message=message)
        raise Invalid(message, errors=[error])
    fields = [variable.field for variable in variables]

    def row(found: Mapping[str, Any]) -> str:
        cells = [_plain(times.write(found["at"]))]
        cells += [_cell(value_at(found, field)) for field in fields]
        cells += [_part(found, name) for name in parts]
        return "\n" + ",".join(cells)

    plain = not (times.zone or times.format)
    layout = Layout(format="csv", variables=variables, parts=tuple(parts)) if plain else None
    return Printer(",".join(_plain(name) for name in names), row, layout)


def _cell(value: Any) -> str:
    return "" if value is ABSENT else to_csv(value)


def _plain(text: str) -> str:
    return quoted(text) if any(character in text for character in ',"\r\n') else text


def _parts(known: Known) -> list[str]:
    names = ["status"] if known.parts & HAS_STATUS else []
    names += ["latitude", "longitude"] if known.parts & HAS_POSITION else []
    return names + (["elevation"] if known.parts & HAS_ELEVATION else [])


def _part(row: Mapping[str, Any], name: str) -> str:
    if name == "status":
        return "" if row["status"] is None else text_to_csv(row["status"])
    place = row["place"]
    return to_csv(place[PLACE.index(name)]) if place else ""


def value_fields(row: Mapping[str, Any]) -> dict[int, Stored]:
    """The values of a row by field, as they are stored: what `numbering.arrays` made arrays of."""
    numbers, exact = row["numbers"] or [], row["exact"] or []
    found: dict[int, Stored] = {}
    for field in range(1, max(len(numbers), len(exact)) + 1):
        number = numbers[field - 1] if field <= len(numbers) else None
        text = exact[field - 1] if field <= len(exact) else None
        if number is not None or text is not None:
            found[field] = (number, bool(row["whole"] >> (field - 1) & 1), text)
    return found
