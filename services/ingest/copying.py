"""Rows in the binary form that COPY reads: asyncpg encodes value by value, most rows here are alike.

Source: https://www.postgresql.org/docs/current/sql-copy.html ("Binary Format"). An array (`array_recv` of the
server) is its dimensions, whether it has nulls, its type, length, lower bound and elements with sizes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from operator import or_

from services.ingest.numbering import Block, Row

COLUMNS = ("entry", "at", "whole", "dataset", "numbers", "exact", "status", "place")
HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"
NULL = b"\xff\xff\xff\xff"
FLOAT8, TEXT = 701, 25
EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)

# Eight columns; each of the first four with the length before it.
_ROW = struct.Struct(">hiqiqiqii")
_AT, _WHOLE, _ENTRY, _NUMBERS = 18, 30, 6, _ROW.size
_ARRAY = struct.Struct(">iiiiii")
_DOUBLE = struct.Struct(">id")
_LENGTH = struct.Struct(">i")


def stream(blocks: Iterable[Block], rows: Iterable[Row]) -> bytearray:
    """Everything there is to copy, columns in order of `COLUMNS`."""
    written = bytearray(HEADER)
    for block in blocks:
        written += _block(block)
    for row in rows:
        written += _row(row)
    written += TRAILER
    return written


def _row(row: Row) -> bytes:
    entry, at, whole, dataset, numbers, exact, status, place = row
    head = _ROW.pack(8, 8, entry, 8, (at - EPOCH) // MICROSECOND, 8, whole, 4, dataset)
    text = NULL if status is None else _text(status)
    return b"".join((head, _doubles(numbers), _texts(exact), text, _doubles(place)))


def _doubles(values: Sequence[float | None] | None) -> bytes:
    if values is None:
        return NULL
    return _array(FLOAT8, [NULL if value is None else _DOUBLE.pack(8, value) for value in values])


def _texts(values: Sequence[str | None] | None) -> bytes:
    if values is None:
        return NULL
    return _array(TEXT, [NULL if value is None else _text(value) for value in values])


def _text(value: str) -> bytes:
    encoded = value.encode()
    return _LENGTH.pack(len(encoded)) + encoded


def _array(oid: int, elements: Sequence[bytes]) -> bytes:
    body = b"".join(elements)
    size = _ARRAY.size - 4 + len(body)
    return _ARRAY.pack(size, 1, NULL in elements, oid, len(elements), 1) + body


def _block(block: Block) -> bytearray:
    """All rows at once: the same bytes for each, then every column over them, byte by byte of its numbers."""
    count = len(block.ats)
    numbers: list[float | None] = [None] * max(block.fields)
    for field in block.fields:
        numbers[field - 1] = 0.0
    row = _row((0, EPOCH, 0, block.dataset, numbers, None, None, None))
    rows = bytearray(row * count)
    _lay(rows, row, _ENTRY, "q", range(block.first, block.first + count))
    _lay(rows, row, _AT, "q", [(at - EPOCH) // MICROSECOND for at in block.ats])
    _lay(rows, row, _WHOLE, "q", _wholes(block))
    for field, column in zip(block.fields, block.columns, strict=True):
        before = sum(number is not None for number in numbers[: field - 1])
        _lay(rows, row, _NUMBERS + _ARRAY.size + 4 * field + 8 * before, "d", column)
    return rows


def _lay(rows: bytearray, row: bytes, offset: int, form: str, column: Sequence[float]) -> None:
    """Write a column of eight bytes at its offset in each row."""
    packed = struct.pack(f">{len(column)}{form}", *column)
    for byte in range(8):
        rows[offset + byte :: len(row)] = packed[byte::8]


def _wholes(block: Block) -> Sequence[int]:
    """For each row which of its numbers are integers."""
    wholes = [0] * len(block.ats)
    for field, column in zip(block.fields, block.columns, strict=True):
        bit = 1 << (field - 1) if field < 64 else -(1 << 63)
        if int in set(map(type, column)):
            bits = [bit if type(value) is int else 0 for value in column]
            wholes = list(map(or_, wholes, bits))
    return wholes
