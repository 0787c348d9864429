"""What clients sent, what they were promised, and what is there: after Jepsen's checker of queues."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass
class Ledger:
    """Every value is written once under a key of its own; all that is known about each."""

    attempted: set[int] = field(default_factory=set)
    acknowledged: dict[int, int] = field(default_factory=dict)
    answers: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Findings:
    """The comparison of a ledger with what is stored."""

    attempted: int
    acknowledged: int
    stored: int
    lost: int
    doubled: int
    unexpected: int
    misnumbered: int


def compare(ledger: Ledger, stored: Iterable[tuple[int, int]]) -> Findings:
    """`stored` are (entry, value) as they lie in the tables."""
    rows = list(stored)
    times = Counter(value for _, value in rows)
    entries = {value: entry for entry, value in rows}
    return Findings(
        attempted=len(ledger.attempted),
        acknowledged=len(ledger.acknowledged),
        stored=len(rows),
        lost=sum(1 for value in ledger.acknowledged if value not in times),
        doubled=sum(count - 1 for count in times.values()),
        unexpected=sum(1 for value in times if value not in ledger.attempted),
        misnumbered=sum(1 for value, entry in ledger.acknowledged.items() if entries.get(value) != entry),
    )
