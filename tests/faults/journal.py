"""The clients' own ledger on disk: what they are about to send is written before, the answer after."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import msgspec

from tests.faults.ledger import Ledger, compare
from tests.journeys.instance import OwnPosthouse

Kind = Literal["reading", "command"]


class Line(msgspec.Struct, array_like=True, frozen=True):
    """One line: `status` 0 before it is sent; `entry` 0 when the answer does not say which it became."""

    at: float
    kind: Kind
    value: int
    key: str
    status: int = 0
    entry: int = 0


class Journal:
    """Written line by line, read again by the checker when all is over."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("wb", buffering=0)
        self._encode = msgspec.json.Encoder().encode

    def sends(self, kind: Kind, value: int, key: str) -> None:
        """Before the first byte of a request leaves; repeats are not told apart."""
        self._file.write(self._encode(Line(time.time(), kind, value, key)) + b"\n")

    def acknowledged(self, kind: Kind, value: int, key: str, status: int, entry: int = 0) -> None:
        """After a 2xx."""
        self._file.write(self._encode(Line(time.time(), kind, value, key, status, entry)) + b"\n")

    def close(self) -> None:
        """No more lines."""
        self._file.close()


@dataclass(frozen=True)
class Count:
    """What became of everything in a journal.

    `recovered` was stored without having been acknowledged; `misnumbered` were promised another entry.
    """

    attempted: int = 0
    acknowledged: int = 0
    stored: int = 0
    lost: int = 0
    doubled: int = 0
    recovered: int = 0
    unexpected: int = 0
    misnumbered: int = 0

    def __add__(self, other: Count) -> Count:
        return Count(
            **{each.name: getattr(self, each.name) + getattr(other, each.name) for each in fields(Count)}
        )


async def check(posthouse: OwnPosthouse, journal: Path) -> Count:
    """Compare a journal with the tables: readings by their value, commands by the dataset they made.

    What belongs to other accounts than that of the devices is none of theirs.
    """
    readings, commands = ledgers(journal)
    rows = await posthouse.sql(
        "SELECT entry, numbers[1]::bigint AS value FROM ingest.reading WHERE dataset IN ("
        " SELECT theirs.number FROM ingest.dataset theirs JOIN ingest.dataset USING (owner)"
        " WHERE dataset.name = 'devices 0')"
    )
    made = await posthouse.sql(
        "SELECT substr(name, 9)::bigint FROM ingest.dataset WHERE name LIKE 'command %'"
    )
    stored = [(row["entry"], row["value"]) for row in rows]
    return count(readings, stored) + count(commands, [(0, row[0]) for row in made])


def count(ledger: Ledger, stored: Iterable[tuple[int, int]]) -> Count:
    """Compare one ledger with (entry, value) as they lie in the tables."""
    rows = list(stored)
    entries = {value: entry for entry, value in rows}
    found = compare(ledger, rows)
    unacknowledged = {value for _, value in rows} - set(ledger.acknowledged)
    return Count(
        attempted=found.attempted,
        acknowledged=found.acknowledged,
        stored=found.stored,
        lost=found.lost,
        doubled=found.doubled,
        recovered=len(unacknowledged & ledger.attempted),
        unexpected=found.unexpected,
        misnumbered=sum(
            1 for value, entry in ledger.acknowledged.items() if entry and entries.get(value, entry) != entry
        ),
    )


def ledgers(journal: Path) -> tuple[Ledger, Ledger]:
    """What a journal says of readings and of commands."""
    decode = msgspec.json.Decoder(Line).decode
    books: dict[str, Ledger] = {"reading": Ledger(), "command": Ledger()}
    with journal.open("rb") as file:
        for text in file:
            line = decode(text)
            book = books[line.kind]
            if line.status:
                book.acknowledged[line.value] = line.entry
            else:
                book.attempted.add(line.value)
    return books["reading"], books["command"]
