"""A CSV file cut into requests: whole lines, in order, each with the header before it."""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from deploy.cli.errors import Stopped

MAX_BODY_BYTES = 1_000_000  # the server takes 1 MiB
MAX_BATCH_LINES = 1_000
BOM = b"\xef\xbb\xbf"
QUOTED = re.compile(rb'(?<![^,])"(?:[^"]|"")*"')
OPENING = re.compile(rb'(?<![^,])"')


@dataclass(frozen=True)
class Survey:
    """What one reading of the file tells: its lines, its columns, and the SHA-256 that is its identity."""

    lines: int
    columns: tuple[str, ...]
    digest: str


@dataclass(frozen=True)
class Batch:
    """Lines `first`..`last` of the file (the header is line 1) for one request; a record may have several."""

    first: int
    records: tuple[tuple[int, bytes], ...]
    header: bytes
    header_lines: int = 1

    @property
    def last(self) -> int:
        """The last line."""
        return self.records[-1][0]

    @property
    def body(self) -> bytes:
        """The header and these lines."""
        return self.header + b"".join(record for _, record in self.records)

    def line_of(self, index: int) -> int:
        """The line of the file behind a line of the body, both counted from 1."""
        return self.first + index - 1 - self.header_lines

    def halves(self) -> tuple[Batch, Batch]:
        """The same lines as two batches; for a batch of more than one record."""
        middle = len(self.records) // 2
        before, after = self.records[:middle], self.records[middle:]
        return replace(self, records=before), replace(self, first=before[-1][0] + 1, records=after)


def survey(path: Path) -> Survey:
    """Read the file once; raises Stopped when it is no CSV in UTF-8 with a header."""
    digest = hashlib.sha256()
    lines = 0
    columns: tuple[str, ...] = ()
    with _opened(path) as file:
        for number, record in _records(path, file):
            text = _text(path, number, record)
            columns = columns if lines else _columns(text)
            digest.update(record)
            lines = number
    if not columns or "" in columns or len(set(columns)) < len(columns):
        raise Stopped(f"{path}: the first line must give every column a name of its own.")
    return Survey(lines, columns, digest.hexdigest())


def batches(path: Path, after: int, max_lines: int = MAX_BATCH_LINES) -> Iterator[Batch]:
    """The lines behind line `after`, a request at a time."""
    with _opened(path) as file:
        records = _records(path, file)
        header_lines, header = next(records)
        header = header.rstrip(b"\r\n") + b"\n"
        held: list[tuple[int, bytes]] = []
        first, size = max(header_lines, after) + 1, len(header)
        for last, record in records:
            if last <= after:
                continue
            if held and (size + len(record) > MAX_BODY_BYTES or last - first >= max_lines):
                yield Batch(first, tuple(held), header, header_lines)
                first, held, size = held[-1][0] + 1, [], len(header)
            if len(header) + len(record) > MAX_BODY_BYTES:
                raise Stopped(f"{path}, line {first}: longer than {MAX_BODY_BYTES:,} bytes.")
            held.append((last, record))
            size += len(record)
        if held:
            yield Batch(first, tuple(held), header, header_lines)


def _opened(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except OSError as error:
        raise Stopped(f"{path} cannot be read: {error.strerror}.") from None


def _records(path: Path, file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Each record with the number of its last line: a quoted value may hold line breaks (RFC 4180)."""
    held: list[bytes] = []
    size = opened = 0
    inside = False
    for number, line in enumerate(file, 1):
        record = line.removeprefix(BOM) if number == 1 else line
        opened = opened if held else number
        held.append(record)
        size += len(record)
        inside = _left_open(record, inside)
        if not inside:
            yield number, b"".join(held)
            held, size = [], 0
        elif size > MAX_BODY_BYTES:
            break
    if held:
        raise Stopped(f"{path}, line {opened}: a quotation mark is opened and not closed.")


def _left_open(line: bytes, inside: bool) -> bool:
    """Whether a quoted value goes on behind this line; a quotation mark within a value opens nothing."""
    if b'"' not in line:
        return inside
    rest = QUOTED.sub(b"", b'"' + line if inside else line)
    return OPENING.search(rest) is not None


def _columns(header: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in next(csv.reader([header]), []))


def _text(path: Path, number: int, record: bytes) -> str:
    try:
        return record.decode()
    except UnicodeDecodeError:
        raise Stopped(f"{path}, line {number}: not UTF-8; convert the file first, as with iconv.") from None
