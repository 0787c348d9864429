"""CSV told apart strictly (RFC 4180); unlike the standard library it tells which cells were quoted."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

CELL = re.compile(r'(?:"([^"]*(?:""[^"]*)*)"|([^",\r\n]*))(,|\r\n|\n|\Z)')
BOM = "\ufeff"
NOTHING_QUOTED: frozenset[int] = frozenset()


class BadTable(Exception):
    """The text cannot be told apart into rows from some line on."""


class Row(NamedTuple):
    """The cells of a row, the line it begins on (from 1), and which cells stood in quotation marks."""

    line: int
    cells: Sequence[str]
    quoted: frozenset[int] | set[int] = NOTHING_QUOTED


def rows(text: str) -> Iterator[Row]:
    """Every row that is not an empty line; raises BadTable."""
    position, line = len(BOM) if text.startswith(BOM) else 0, 1
    size = len(text)
    while position < size:
        end = text.find("\n", position)
        end = size if end < 0 else end
        if text.find('"', position, end) < 0:
            row, position = _plain(text[position:end], line), end + 1
            line += 1
            if row.cells != [""]:
                yield row
        else:
            row, end = _with_quotes(text, position, line)
            line += text.count("\n", position, end)
            position = end
            yield row


def _plain(text: str, line: int) -> Row:
    text = text.removesuffix("\r")
    if "\r" in text:
        raise BadTable(f"line {line}: a carriage return outside quotation marks")
    return Row(line, text.split(","))


def _with_quotes(text: str, position: int, line: int) -> tuple[Row, int]:
    cells: list[str] = []
    quoted: set[int] = set()
    while True:
        match = CELL.match(text, position)
        if match is None:
            raise BadTable(f"line {line}: a quotation mark out of place, or one that is never closed")
        if match[1] is None:
            cells.append(match[2])
        else:
            quoted.add(len(cells))
            cells.append(match[1].replace('""', '"'))
        position = match.end()
        if match[3] != ",":
            return Row(line, cells, quoted), position
