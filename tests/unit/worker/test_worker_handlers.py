"""Shipped lines are stored together, each in the name of who sent it; the days of the log are kept."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
import structlog

from services.worker.handlers import Deps, keep_logs, routes, store_log_lines
from services.worker.rules import Row, row_of, row_of_ended
from shared import logs
from shared.bus import topology
from shared.bus.ids import uuid7
from shared.bus.memory import MemoryBroker, MemoryInbox
from shared.bus.routes import Done, Job
from shared.bus.service import Service
from shared.bus.shipping import Shipper
from shared.contracts.base import Nothing, Principal
from shared.contracts.worker import Ended, KeepLogs, LogLine, StoreLogLines
from tests.log import configured
from tests.suites.worlds import eventually

NOW = datetime(2026, 1, 1, tzinfo=UTC)
INGEST = Principal(kind="service", id="ingest")
TRACE = "0af7651916cd43dd8448eb211c80319c"


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


def line(event: str, **more: Any) -> LogLine:
    return LogLine(**{"at": NOW, "level": "warning", "service": "ingest", "event": event, **more})


def job(*events: str, **more: Any) -> Job[StoreLogLines]:
    lines = tuple(line(event, **more) for event in events)
    return Job(StoreLogLines(lines=lines), uuid7(), INGEST, NOW)


async def test_every_line_of_every_shipment_is_stored_in_one_statement():
    shelf = Shelf()
    ended = await store_log_lines([job("a", "b"), job("c")], Deps(shelf, 30))
    assert [row.event for row in shelf.rows] == [b"a", b"b", b"c"]
    assert shelf.statements == 1
    assert ended == [Done(Nothing()), Done(Nothing())]


async def test_a_line_counts_as_said_by_who_sent_it_whatever_it_says_itself():
    shelf = Shelf()
    await store_log_lines([job("a", service="auth")], Deps(shelf, 30))
    assert shelf.rows[0].service == b"ingest"


ENDED = Ended(
    1_700_000_000_123_456, bytes(16), "command", "ingest.write_readings", "done", "user:ann", "r1", "", 0
)


async def test_what_a_service_has_ended_is_told_in_its_name():
    shelf = Shelf()
    shipment = StoreLogLines(ended=(ENDED,))
    await store_log_lines([Job(shipment, uuid7(), INGEST, NOW)], Deps(shelf, 30))
    [row] = shelf.rows
    assert (row.service, row.event, row.level) == (b"ingest", b"command_ended", 20)


ENDINGS = [
    ENDED,
    Ended(
        0,
        UUID(int=7).bytes,
        "query",
        "a.b",
        "failed",
        "anonymous:",
        TRACE,
        f"00-{TRACE}-b7ad6b7169203331-01",
        5,
    ),
    Ended(9_000, UUID(int=7).bytes, "event", "a.b", "done", "user:ü", "x" * 300, "no trace", 2),
]


@pytest.mark.parametrize("ended", ENDINGS)
def test_the_quick_way_to_a_row_says_what_the_line_says(ended: Ended) -> None:
    assert row_of_ended("ingest", ended) == row_of("ingest", ended.line("ingest"))


def test_the_id_of_a_trace_is_stored_once():
    """At the door a request without an id is given that of its trace."""
    assert row_of("ingest", line("a", request_id=TRACE, trace_id=TRACE)).request_id == b""
    assert row_of("ingest", line("a", request_id="r1", trace_id=TRACE)).request_id == b"r1"
    assert row_of("ingest", line("a")).request_id is None


async def test_the_setting_says_how_long_days_are_kept():
    shelf = Shelf()
    await keep_logs(KeepLogs(), Deps(shelf, 7))
    assert shelf.kept_days == 7


class Full(Shelf):
    """A store that takes nothing, and says so."""

    async def add_rows(self, rows: Sequence[Row]) -> None:
        self.statements += 1
        structlog.get_logger().error("no_room")
        raise ValueError("no room")


@asynccontextmanager
async def worker(broker: MemoryBroker, shelf: Shelf) -> AsyncIterator[Shipper]:
    """Worker at work, shipping its own lines."""
    link = broker.link("worker")
    shipper = Shipper(link, "worker")
    service = Service(routes, link, MemoryInbox(), lambda call: Deps(shelf, 30), tell=shipper.ended)
    logs.on_ship(shipper.add)
    await service.start("worker.logs")
    try:
        yield shipper
    finally:
        logs.on_ship(None)
        await service.stop(1)
        broker.close()


async def test_a_service_written_elsewhere_logs_as_well_in_the_name_of_its_account() -> None:
    broker = MemoryBroker([*topology.service_queues("worker", logs=True), *topology.shared_queues()])
    shelf = Shelf()
    async with worker(broker, shelf):
        for principal in ("weather", "ingest"):
            sender = Shipper(broker.link("weather"), principal)
            sender.add({"level": "error", "event": f"said as {principal}"})
            sender.flush()
        await eventually(lambda: are_dead(broker, 1))
        await eventually(lambda: has_rows(shelf, 1))
    assert [(row.service, row.event) for row in shelf.rows] == [(b"weather", b"said as weather")]


async def has_rows(shelf: Shelf, count: int) -> bool:
    return len(shelf.rows) == count


async def test_what_goes_wrong_with_storing_lines_is_not_shipped_as_lines() -> None:
    printed = io.StringIO()
    broker = MemoryBroker([*topology.service_queues("worker", logs=True), *topology.shared_queues()])
    with configured(printed):
        await what_goes_wrong(broker)
    said = {json.loads(each)["event"] for each in printed.getvalue().splitlines()}
    assert said == {"no_room", "frame_dead_lettered", "something_else"}


async def what_goes_wrong(broker: MemoryBroker) -> None:
    async with worker(broker, Full()) as shipper:
        sender = Shipper(broker.link("ingest"), "ingest")
        sender.add({"level": "error", "event": "something"})
        sender.flush()
        await eventually(lambda: are_dead(broker, 1))
        shipper.flush()
        assert not broker.messages("worker.logs")
        structlog.get_logger().error("something_else")
        shipper.flush()
        await eventually(lambda: are_dead(broker, 2))


async def are_dead(broker: MemoryBroker, count: int) -> bool:
    return len(broker.messages("dead.worker")) == count
