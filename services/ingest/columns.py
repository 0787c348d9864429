"""Readings that are all alike, as columns: what a thousand of them cost is paid in C, not once for each.

Nothing here decides what a reading means. A text is taken only when printing what was read gives the same
text again; whatever is not so is left to `formats`, which reads one by one and says what is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import msgspec

from services.ingest.times import TimeReader
from services.ingest.values import EXACT_INTEGER, Fault

FEW = 8  # up to so many, one by one is as fast
Column = Sequence[int | float]
ALIKE = (("at", "values"), ("values", "at"), ("values",))

_decoder = msgspec.json.Decoder()
decode, decode_lines = _decoder.decode, _decoder.decode_lines
_numbers = msgspec.json.Decoder(list[int | float]).decode
_encoder = msgspec.json.Encoder()
encode, encode_lines = _encoder.encode, _encoder.encode_lines
UNREADABLE = (ValueError, OverflowError, RecursionError)  # msgspec's errors are ValueErrors


class Columns(msgspec.Struct):
    """Readings with numbers for the same variables and nothing else; `columns` are in order of `tags`.

    An integer is an `int` within 2^53, any other number a finite `float`; `first` is the index of the first
    reading, the others follow.
    """

    tags: tuple[str, ...]
    columns: list[Column]
    ats: Sequence[datetime]
    first: int = 0

    def __len__(self) -> int:
        return len(self.ats)


def columns_of(readings: Sequence[Any], times: TimeReader, born: datetime, first: int = 0) -> Columns | None:
    """Decoded JSON as columns; None when it is not all alike or not all right."""
    if set(map(type, readings)) != {dict} or len(shapes := set(map(tuple, readings))) != 1:
        return None
    (parts,) = shapes
    if parts not in ALIKE:
        return None
    values = [reading["values"] for reading in readings]
    if set(map(type, values)) != {dict} or len(shapes := set(map(tuple, values))) != 1:
        return None
    (tags,) = shapes
    columns: list[Column] = list(zip(*map(dict.values, values), strict=True))
    if not tags or not all(map(are_numbers, columns)):
        return None
    ats = [born] * len(values)
    if len(parts) == 2:
        found = moments([reading["at"] for reading in readings], times)
        if found is None:
            return None
        ats = found
    return Columns(tags, columns, ats, first)


def are_numbers(column: Sequence[Any]) -> bool:
    """Whether each is a number that its double tells exactly; integers among doubles may make it False."""
    kinds = set(map(type, column))
    if kinds == {float}:
        return True
    return kinds <= {int, float} and -EXACT_INTEGER <= min(column) <= max(column) <= EXACT_INTEGER


def moments(texts: Sequence[Any], times: TimeReader) -> list[datetime] | None:
    """The moments of texts, in UTC; None when one has to be looked at by itself."""
    if set(map(type, texts)) != {str}:
        return None
    try:
        return times.read_all(texts)
    except Fault:
        return None


def numbers_of(cells: Iterable[str]) -> Column | None:
    """Cells of a CSV as numbers; None when one of them is anything else, or not printed as we print it."""
    text = ("[" + ",".join(cells) + "]").encode()
    try:
        column = _numbers(text)
        return column if are_numbers(column) and encode(column) == text else None
    except UNREADABLE:
        return None


def are_printed(found: Sequence[Any], lines: bytes) -> bool:
    """Whether what was decoded from NDJSON is printed as this text, the spaces of Python's json apart.

    A space that is taken out of a string here makes it another than the one that was read: no harm.
    """
    compact = lines.replace(b'": ', b'":').replace(b', "', b',"').removesuffix(b"\n")
    printed = encode_lines(found).removesuffix(b"\n")
    return printed == compact or printed == _zeros.sub(_DIGITS, compact)


def is_printed(found: Any, text: bytes) -> bool:
    """Whether what was decoded from a JSON text is printed as this text, but for white space and 22.50.

    Then the text has no key twice, no number that is not exact, no escape that was not needed.
    """
    try:
        printed = encode(found)
        if printed == text:
            return True
        compact = msgspec.json.format(text, indent=-1)
        return printed == compact or printed == _zeros.sub(_DIGITS, compact)
    except UNREADABLE:
        return False


# Zeros at the end of a number; those of a text are missed in what is printed, so that it is read by itself.
_zeros = re.compile(rb"(\.[0-9]+?)0{1,20}(?=[,}\]\n])")
_DIGITS = rb"\1"
