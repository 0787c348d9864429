"""What is really there, straight from the tables, and whether it is what was promised."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

from tests.faults.ledger import Findings, compare
from tests.faults.writers import Writers
from tests.journeys.instance import OwnPosthouse, until_it_is

NOTICED_SECONDS = 6
"""RabbitMQ counts what is in a queue every five seconds."""


async def settled(posthouse: OwnPosthouse) -> None:
    """Return when RabbitMQ has counted nothing in ingest's queue, waiting or handed out, since this began.

    One such count is enough, and two in a row may not come: each ingest process sends itself a command every
    ten seconds, and when that falls together with the counting, every second count finds it.
    """
    began, path, counts = time.monotonic(), f"queues/{posthouse.virtual_host}/ingest", dict[float, str]()

    async def is_empty() -> bool:
        queue, after = await posthouse.management("GET", path), time.monotonic() - began
        counts[round(after, 1)] = f"{queue.get('messages_ready')}+{queue.get('messages_unacknowledged')}"
        return queue.get("messages") == 0 and after > NOTICED_SECONDS

    try:
        await until_it_is(is_empty, "ingest's queue is empty")
    except AssertionError as error:
        error.add_note(f"ready + handed out, by seconds: {counts}")
        raise


@dataclass(frozen=True)
class Stored:
    """One dataset after all has settled."""

    findings: Findings
    entries: list[int]
    ledger: dict[str, Any]

    @property
    def is_numbered(self) -> bool:
        """Whether the entries are 1 to n and the dataset's own ledger says the same."""
        last = len(self.entries)
        books = (self.ledger["stored"], self.ledger["last_entry"], self.ledger["in_flight"])
        return self.entries == list(range(1, last + 1)) and books == (last, last, 0)


async def look(posthouse: OwnPosthouse, token: str, writers: Writers) -> list[Stored]:
    """Compare every ledger with the rows of its dataset."""
    sql = """
        SELECT r.entry, r.numbers[1]::bigint AS value
        FROM ingest.reading r JOIN ingest.dataset d ON d.number = r.dataset
        WHERE d.id = $1 ORDER BY r.entry
    """
    found = []
    for dataset_id, ledger in writers.ledgers.items():
        rows = await posthouse.sql(sql, dataset_id)
        path = f"/v1/datasets/{dataset_id}/ledger"
        found.append(
            Stored(
                compare(ledger, [(row["entry"], row["value"]) for row in rows]),
                [row["entry"] for row in rows],
                await asyncio.to_thread(posthouse.ask, path, None, token),
            )
        )
    return found


def total(found: list[Stored]) -> dict[str, int]:
    """The findings of all datasets together."""
    return {name: sum(getattr(one.findings, name) for one in found) for name in Findings.__annotations__}
