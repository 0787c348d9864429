"""Shipped lines are stored together; the days of the log are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from services.worker.handlers import Deps, keep_logs, store_log_lines
from services.worker.rules import Row
from shared.bus.ids import uuid7
from shared.bus.routes import Done, Job
from shared.contracts.base import Nothing, Principal
from shared.contracts.worker import Ended, KeepLogs, LogLine, StoreLogLines

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Shelf:
    """A store that remembers what it was told."""

    rows: list[Row] = field(default_factory=list)
    statements: int = 0
    kept_days: int = 0

    async def add_rows(self, rows: Sequence[Row]) -> None:
        self.rows += rows
        self.statements += 1

    async def keep_log(self, keep_days: int) -> bool:
        self.kept_days = keep_days
        return True


def job(*events: str) -> Job[StoreLogLines]:
    lines = tuple(LogLine(at=NOW, level="warning", service="ingest", event=event) for event in events)
    return Job(StoreLogLines(lines=lines), uuid7(), Principal(kind="service", id="ingest"), NOW)


async def test_every_line_of_every_shipment_is_stored_in_one_statement():
    shelf = Shelf()
    ended = await store_log_lines([job("a", "b"), job("c")], Deps(shelf, 30))
    assert [row.event for row in shelf.rows] == [b"a", b"b", b"c"]
    assert shelf.statements == 1
    assert ended == [Done(Nothing()), Done(Nothing())]


async def test_what_a_service_has_ended_is_told_in_its_name():
    shelf = Shelf()
    ended = Ended(0, bytes(16), "command", "ingest.write_readings", "done", "user:ann", "r1", "", 0)
    shipment = StoreLogLines(ended=(ended,))
    await store_log_lines(
        [Job(shipment, uuid7(), Principal(kind="service", id="ingest"), NOW)], Deps(shelf, 30)
    )
    [row] = shelf.rows
    assert (row.service, row.event, row.level) == (b"ingest", b"command_ended", 20)


async def test_the_setting_says_how_long_days_are_kept():
    shelf = Shelf()
    await keep_logs(KeepLogs(), Deps(shelf, 7))
    assert shelf.kept_days == 7
