"""Bodies of JSON, NDJSON and CSV to readings: whatever is wrong with one is said of this one, all at once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import msgspec
from msgspec import Raw

from services.ingest import tables
from services.ingest.tables import Row
from services.ingest.times import Span, TimeReader, format_of, zone_of
from services.ingest.values import (
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


def read_body(write: WriteReadings, born: datetime, span: Span) -> Items:
    """Every reading of a body, in its order; raises Malformed, or a Refusal of its options."""
    _check_position(write)
    try:
        text = write.body.decode()
    except UnicodeDecodeError as error:
        raise Malformed(f"not UTF-8: byte {error.start}") from None
    times = TimeReader(span, zone_of(write.timezone), format_of(write.time_format))
    if write.format == "csv":
        return _bounded(_read_csv(text, times, born, write.time_column))
    reader = _ObjectReader(TimeReader(span, times.zone), born)
    objects = _documents(write.body) if write.format == "json" else _lines(write.body)
    return _bounded(reader.read(index, raw) for index, raw in objects)


def _check_position(write: WriteReadings) -> None:
    """Without a position above 0 every batch of a source would look as if it were stored already."""
    missing = "position" if write.source and not write.position else ""
    missing = "source" if write.position and not write.source else missing
    if missing:
        message = "an import says both: its source, and the position it has come to with this batch, from 1"
        error = FieldError(where="query", path=missing, code="required", message=message)
        raise Invalid(message, errors=[error])


def _bounded(items: Iterator[Item | ReadingRejected]) -> Items:
    found: Items = []
    for item in items:
        if len(found) == MAX_READINGS:
            detail = f"more than {MAX_READINGS} readings in one request"
            raise Refusal(detail, code="too_many_readings", status=413)
        found.append(item)
    return found


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

    def read(self, index: int, raw: bytes) -> Item | ReadingRejected:
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
