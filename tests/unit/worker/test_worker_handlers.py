"""Shipped lines are stored together; the days of the log are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from services.worker.handlers import Deps, keep_logs, store_log_lines
from shared.bus.ids import uuid7
from shared.bus.routes import Done, Job
from shared.contracts.base import Nothing, Principal
from shared.contracts.worker import KeepLogs, LogLine, StoreLogLines

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Shelf:
    """A store that remembers what it was told."""

    lines: list[LogLine] = field(default_factory=list)
    statements: int = 0
    kept_days: int = 0

    async def add_lines(self, lines: Sequence[LogLine]) -> None:
        self.lines += lines
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
    assert [line.event for line in shelf.lines] == ["a", "b", "c"]
    assert shelf.statements == 1
    assert ended == [Done(Nothing()), Done(Nothing())]


async def test_the_setting_says_how_long_days_are_kept():
    shelf = Shelf()
    await keep_logs(KeepLogs(), Deps(shelf, 7))
    assert shelf.kept_days == 7
