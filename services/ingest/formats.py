"""Bodies of JSON, NDJSON and CSV to readings: whatever is wrong with one is said of this one, all at once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any
from uuid import UUID

import msgspec
from msgspec import Raw

from services.ingest import tables
from services.ingest.columns import (
    FEW,
    UNREADABLE,
    Columns,
    are_printed,
    columns_of,
    decode,
    decode_lines,
    encode,
    is_printed,
    moments,
    numbers_of,
)
from services.ingest.tables import Row
from services.ingest.times import Span, TimeReader, format_of, zone_of
from services.ingest.values import (
    EXACT_INTEGER,
    NULL,
    Fault,
    Stored,
    as_number,
    check_text,
    from_csv,
    from_json,
    from_text,
    json_text,
)
from shared.contracts.base import FieldError
from shared.contracts.ingest import ReadingRejected, WriteReadings
from shared.errors import Invalid, Refusal

MAX_READINGS = 50_000
MAX_ID = 200
LIMITS = {"latitude": 90.0, "longitude": 180.0, "elevation": float("inf")}
Place = tuple[float | None, float | None, float | None]


class Item(msgspec.Struct, gc=False):
    """A reading that is right by itself; whether the dataset has its variables is not known yet."""

    index: int
    at: datetime
    values: list[tuple[str, Stored]]
    id_hash: UUID | None = None
    status: str | None = None
    place: Place | None = None


Items = list[Item | ReadingRejected]

_document = msgspec.json.Decoder(list[Raw])
_object = msgspec.json.Decoder(dict[str, Raw])


class Malformed(Refusal):
    """The body cannot be told apart into readings."""

    status = 400
    code = "malformed"


def read_body(write: WriteReadings, born: datetime, span: Span) -> Items | Columns:
    """Every reading of a body, in its order; raises Malformed, or a Refusal of its options.

    The same as `read_exactly`, sooner: what is as we print it is decoded at once, the rest by itself.
    """
    text, times = _text_and_times(write, span)
    if write.format == "csv":
        columns = _columns_of_csv(text, times, born, write.time_column)
        return read_exactly(write, born, span) if columns is None else columns
    reader = _ObjectReader(times, born)
    return _read_json(write.body, reader) if write.format == "json" else _read_lines(write.body, reader)


def read_exactly(write: WriteReadings, born: datetime, span: Span) -> Items:
    """Every reading of a body, each part of it from its text."""
    text, times = _text_and_times(write, span)
    if write.format == "csv":
        return _bounded(_read_csv(text, times, born, write.time_column))
    reader = _ObjectReader(times, born)
    texts = _documents(write.body) if write.format == "json" else _lines(write.body)
    return _bounded(reader.read(index, raw) for index, raw in texts)


def items_of(found: Items | Columns) -> Items:
    """The readings one by one."""
    if not isinstance(found, Columns):
        return found
    rows = zip(*found.columns, strict=True)
    return [
        Item(index, at, [(tag, _stored(value)) for tag, value in zip(found.tags, row, strict=True)])
        for index, (at, row) in enumerate(zip(found.ats, rows, strict=True), found.first)
    ]


def _text_and_times(write: WriteReadings, span: Span) -> tuple[str, TimeReader]:
    _check_position(write)
    try:
        text = write.body.decode()
    except UnicodeDecodeError as error:
        raise Malformed(f"not UTF-8: byte {error.start}") from None
    zone, form = zone_of(write.timezone), format_of(write.time_format)
    return text, TimeReader(span, zone, form if write.format == "csv" else "")


def _check_position(write: WriteReadings) -> None:
    """Without a position above 0 every batch of a source would look as if it were stored already."""
    missing = "position" if write.source and not write.position else ""
    missing = "source" if write.position and not write.source else missing
    if missing:
        message = "an import says both: its source, and the position it has come to with this batch, from 1"
        error = FieldError(where="query", path=missing, code="required", message=message)
        raise Invalid(message, errors=[error])


def _bounded(items: Iterator[Item | ReadingRejected]) -> Items:
    found = list(islice(items, MAX_READINGS + 1))
    _check_count(found)
    return found


def _check_count(readings: Sequence[Any]) -> None:
    if len(readings) > MAX_READINGS:
        detail = f"more than {MAX_READINGS} readings in one request"
        raise Refusal(detail, code="too_many_readings", status=413)


def _read_json(body: bytes, reader: _ObjectReader) -> Items | Columns:
    try:
        found = decode(body)
    except UNREADABLE:
        found = None
    readings = [found] if type(found) is dict else found
    if type(readings) is not list:
        return _bounded(reader.read(index, raw) for index, raw in _documents(body))
    if not is_printed(found, body):
        pairs = zip(_documents(body), readings, strict=True)
        return _bounded(reader.take(index, one, text) for (index, text), one in pairs)
    _check_count(readings)
    columns = columns_of(readings, reader.times, reader.born) if len(readings) > FEW else None
    if columns is not None:
        return columns
    return [reader.quick(index, one) or reader.read(index, encode(one)) for index, one in enumerate(readings)]


def _read_lines(body: bytes, reader: _ObjectReader) -> Items | Columns:
    try:
        readings = decode_lines(body)
        if len(readings) > FEW and are_printed(readings, body):
            _check_count(readings)
            columns = columns_of(readings, reader.times, reader.born, first=1)
            if columns is not None:
                return columns
    except UNREADABLE:
        pass
    return _bounded(reader.line(number, line) for number, line in _lines(body))


def _documents(body: bytes) -> Iterator[tuple[int, bytes]]:
    if body.lstrip(b" \t\r\n")[:1] != b"[":
        _well_formed(body)
        yield 0, body
        return
    try:
        items = _document.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Malformed(_told(error)) from None
    yield from ((index, bytes(raw)) for index, raw in enumerate(items))


def _well_formed(body: bytes) -> None:
    try:
        _object.decode(body)
    except msgspec.ValidationError:
        raise Malformed("the body must be a reading (an object) or a list of readings") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise Malformed(_told(error)) from None


def _told(error: Exception) -> str:
    return "JSON nested too deep" if isinstance(error, RecursionError) else str(error)


def _lines(body: bytes) -> Iterator[tuple[int, bytes]]:
    for number, line in enumerate(body.split(b"\n"), 1):
        if line.strip():
            yield number, line


class _Draft:
    """A reading being put together, with its faults."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.faults: list[tuple[str, Fault]] = []
        self.at: datetime | None = None
        self.values: list[tuple[str, Stored]] = []
        self.id: str | None = None
        self.status: str | None = None
        self.place: dict[str, float] = {}

    def finished(self, born: datetime) -> Item | ReadingRejected:
        """The reading, or everything that is wrong with it under the code of the first fault."""
        if not (self.faults or self.values or self.at or self.place or self.status is not None):
            self.faults.append(("values", Fault("empty", "nothing to store")))
        if self.faults:
            return _rejected(self.index, self.faults)
        parts = self.place
        place = (parts.get("latitude"), parts.get("longitude"), parts.get("elevation")) if parts else None
        hashed = None if self.id is None else hash_of(self.id)
        return Item(self.index, self.at or born, self.values, hashed, self.status, place)


def _rejected(index: int, faults: Sequence[tuple[str, Fault]]) -> ReadingRejected:
    message = "; ".join(f"{path}: {fault.message}" if path else fault.message for path, fault in faults)
    return ReadingRejected(index=index, code=faults[0][1].code, message=message)


def hash_of(own_id: str) -> UUID:
    """128 bits of SHA-256 that stand for a client's id of a reading."""
    return UUID(bytes=hashlib.sha256(own_id.encode()).digest()[:16])


def _own_id(text: str) -> str:
    if not 0 < len(text) <= MAX_ID:
        raise Fault("bad_id", f"an id has 1 to {MAX_ID} characters")
    return text


def _coordinate(name: str, number: float | None) -> float:
    if number is None:
        raise Fault("wrong_type", "must be a number")
    if not -LIMITS[name] <= number <= LIMITS[name]:
        raise Fault("out_of_range", f"beyond {LIMITS[name]:g}")
    return number


@dataclass(frozen=True)
class _ObjectReader:
    """Reads one JSON object."""

    times: TimeReader
    born: datetime

    def line(self, index: int, raw: bytes) -> Item | ReadingRejected:
        """A line of NDJSON."""
        try:
            found = decode(raw)
        except UNREADABLE:
            return self.read(index, raw)
        return self.take(index, found, raw)

    def take(self, index: int, found: object, raw: bytes) -> Item | ReadingRejected:
        """What was decoded from this text, unless something about it has to be looked at in the text."""
        return (self.quick(index, found) if is_printed(found, raw) else None) or self.read(index, raw)

    def quick(self, index: int, found: Any) -> Item | None:
        """What was decoded from a text that is printed the same; None when it is not right."""
        try:
            item = Item(index, self.born, [(tag, _stored(value)) for tag, value in found["values"].items()])
            for name, part in found.items():
                if name != "values":
                    self._take_part(item, name, part)
        except (Fault, TypeError, KeyError, AttributeError):
            return None
        return item if item.values else None

    def _take_part(self, item: Item, name: str, part: Any) -> None:
        if name == "entry" or (part is None and name in _OPTIONAL):
            return
        if name == "at":
            item.at = self.times.read(_str(part))
        elif name == "id":
            item.id_hash = hash_of(_own_id(_str(part)))
        elif name == "status":
            item.status = check_text(_str(part))
        elif name in LIMITS:
            place = dict(zip(LIMITS, item.place or (None, None, None), strict=True))
            place[name] = _coordinate(name, _stored(part)[0] if type(part) is not str else None)
            item.place = place["latitude"], place["longitude"], place["elevation"]
        else:
            raise Fault("unknown_field", "a reading has no such part")

    def read(self, index: int, raw: bytes) -> Item | ReadingRejected:
        """A text that is known to be well-formed or is a line; everything that is wrong with it at once."""
        try:
            parts = _object.decode(raw)
        except msgspec.ValidationError:
            return _rejected(index, [("", Fault("wrong_type", "a reading is a JSON object"))])
        except (msgspec.DecodeError, RecursionError) as error:
            return _rejected(index, [("", Fault("malformed", _told(error)))])
        draft = _Draft(index)
        if "values" not in parts:
            draft.faults.append(("values", Fault("missing", "a reading has values")))
        for name, part in parts.items():
            try:
                self._take(draft, name, bytes(part).decode())
            except Fault as fault:
                draft.faults.append((name, fault))
        return draft.finished(self.born)

    def _take(self, draft: _Draft, name: str, raw: str) -> None:
        if name == "values":
            self._values(draft, raw)
        elif name == "entry" or (raw == "null" and name in _OPTIONAL):
            pass
        elif name == "at":
            draft.at = self.times.read(json_text(raw))
        elif name == "id":
            draft.id = _own_id(json_text(raw))
        elif name == "status":
            draft.status = check_text(json_text(raw))
        elif name in LIMITS:
            draft.place[name] = _coordinate(name, _plain_number(raw))
        else:
            raise Fault("unknown_field", "a reading has no such part")

    def _values(self, draft: _Draft, raw: str) -> None:
        for tag, value in raw_values(raw).items():
            try:
                draft.values.append((tag, from_json(value)))
            except Fault as fault:
                draft.faults.append((f"values.{tag}", fault))


def _str(part: Any) -> str:
    if type(part) is not str:
        raise Fault("wrong_type", "must be a text")
    return part


def _stored(value: Any) -> Stored:
    """A decoded value as it is stored; raises a Fault when it has to be looked at in its text."""
    kind = type(value)
    if kind is float:
        return value, False, None
    if kind is int and -EXACT_INTEGER <= value <= EXACT_INTEGER:
        return float(value), True, None
    if kind is str:
        return from_text(value)
    if value is None:
        return NULL
    raise Fault("wrong_type", "must be a number, a text or null")


_OPTIONAL = frozenset({"id", "at", "status", *LIMITS})


def _plain_number(raw: str) -> float | None:
    if raw[0] not in "-0123456789":
        return None
    number, _, _ = from_json(raw)
    return number


def raw_values(raw: str | bytes) -> dict[str, str]:
    """The values of a JSON object, each as its text; raises Fault."""
    try:
        return {tag: bytes(value).decode() for tag, value in _object.decode(raw).items()}
    except msgspec.ValidationError:
        raise Fault("wrong_type", "must be an object: {tag: value}") from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise Fault("malformed", _told(error)) from None


def _read_csv(
    text: str, times: TimeReader, born: datetime, time_column: str
) -> Iterator[Item | ReadingRejected]:
    try:
        rows = tables.rows(text)
        reader = _RowReader(_header(next(rows, None), time_column), times, born)
        for row in rows:
            yield reader.read(row)
    except tables.BadTable as error:
        raise Malformed(str(error)) from None


def _columns_of_csv(text: str, times: TimeReader, born: datetime, time_column: str) -> Columns | None:
    """A CSV of nothing but a time and numbers; None when it is not so, or one of them is not right."""
    text = text.removeprefix(tables.BOM).replace("\r\n", "\n").removesuffix("\n")
    lines = text.split("\n")
    if '"' in text or "\r" in text or "" in lines or not FEW < len(lines) <= MAX_READINGS:
        return None
    head, *rows = [line.split(",") for line in lines]
    names = _header(Row(1, head), time_column)
    if not _PARTS.isdisjoint(names) or set(map(len, rows)) != {len(names)}:
        return None
    cells = dict(zip(names, zip(*rows, strict=True), strict=True))
    cells.pop("entry", None)
    told = cells.pop("at", None)
    ats = [born] * len(rows) if told is None else moments(told, times)
    columns = [numbers_of(column) for column in cells.values()]
    numbers = [column for column in columns if column is not None]
    if ats is None or not numbers or len(numbers) < len(columns):
        return None
    return Columns(tuple(cells), numbers, ats, first=2)


_PARTS = frozenset({"id", "status", *LIMITS})


def _header(row: Row | None, time_column: str) -> list[str]:
    if row is None:
        raise Malformed("a CSV begins with a line that names its columns")
    names = [name.strip() for name in row.cells]
    if "" in names or len(set(names)) < len(names):
        raise Malformed("every column needs a name of its own")
    time_column = time_column.strip()
    if time_column and time_column not in names:
        raise Malformed(f"there is no column {time_column}")
    if time_column != "at" and time_column and "at" in names:
        raise Malformed(f"two columns say the time: at and {time_column}")
    return ["at" if name == (time_column or "at") else name for name in names]


@dataclass(frozen=True)
class _RowReader:
    """Reads one row of a CSV; the time has the name `at` here, whatever its column is called."""

    names: list[str]
    times: TimeReader
    born: datetime

    def read(self, row: Row) -> Item | ReadingRejected:
        if len(row.cells) != len(self.names):
            wanted, found = len(self.names), len(row.cells)
            return _rejected(row.line, [("", Fault("wrong_columns", f"{found} columns instead of {wanted}"))])
        draft = _Draft(row.line)
        for column, name in enumerate(self.names):
            try:
                self._take(draft, name, row.cells[column], column in row.quoted)
            except Fault as fault:
                draft.faults.append((name, fault))
        return draft.finished(self.born)

    def _take(self, draft: _Draft, name: str, cell: str, quoted: bool) -> None:
        if name == "at":
            draft.at = self.times.read(cell)
        elif name == "entry" or not (cell or quoted):
            pass
        elif name == "id":
            draft.id = _own_id(cell)
        elif name == "status":
            draft.status = check_text(cell)
        elif name in LIMITS:
            draft.place[name] = _coordinate(name, as_number(cell))
        elif (value := from_text(cell) if quoted else from_csv(cell)) is not None:
            draft.values.append((name, value))
