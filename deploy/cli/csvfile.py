"""A CSV file cut into requests: whole lines, in order, each with the header before it."""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
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
    """Lines `first`..`last` of the file (the header is line 1) as the body of one request."""

    first: int
    last: int
    body: bytes
    header_lines: int = 1

    def line_of(self, index: int) -> int:
        """The line of the file behind a line of the body, both counted from 1."""
        return self.first + index - 1 - self.header_lines


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
    if not columns:
        raise Stopped(f"{path}: the first line must name the columns.")
    return Survey(lines, columns, digest.hexdigest())


def batches(path: Path, after: int, max_lines: int = MAX_BATCH_LINES) -> Iterator[Batch]:
    """The lines behind line `after`, a request at a time."""
    with _opened(path) as file:
        records = _records(path, file)
        header_lines, header = next(records)
        header = header.rstrip(b"\r\n") + b"\n"
        end, first, held, size = header_lines, 0, [header], len(header)
        for last, record in records:
            if last <= after:
                end = last
                continue
            full = size + len(record) > MAX_BODY_BYTES or end - first + 1 >= max_lines
            if len(held) > 1 and full:
                yield Batch(first, end, b"".join(held), header_lines)
                held, size = [header], len(header)
            if len(held) == 1:
                first = end + 1
            if len(header) + len(record) > MAX_BODY_BYTES:
                raise Stopped(f"{path}, line {first}: longer than {MAX_BODY_BYTES:,} bytes.")
            held.append(record)
            size += len(record)
            end = last
        if len(held) > 1:
            yield Batch(first, end, b"".join(held), header_lines)


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
