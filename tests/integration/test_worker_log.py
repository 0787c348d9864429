"""Shipped log lines are stored by day, and whole days go."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import pytest

from services.worker.rules import row_of, row_of_ended
from services.worker.store import Store
from shared.contracts.worker import Ended, LogLine
from tests.servers import Place

NOW = datetime.now(UTC)
TRACE = "0af7651916cd43dd8448eb211c80319c"


def line(**more: object) -> LogLine:
    return LogLine(**{"at": NOW, "level": "warning", "service": "ingest", "event": "something", **more})


async def add(store: Store, lines: Sequence[LogLine]) -> None:
    await store.add_rows([row_of(each.service, each) for each in lines])


@pytest.fixture
async def connection(database: Place) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    connection = await asyncpg.connect(database.url("worker"))
    yield connection
    await connection.close()


@pytest.fixture
def store(connection: asyncpg.Connection[asyncpg.Record]) -> Store:
    return Store(connection)


async def days(connection: asyncpg.Connection[asyncpg.Record]) -> list[str]:
    sql = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'log_line'::regclass ORDER BY 1"
    return [row[0] for row in await connection.fetch(sql)]


def name_of(day: datetime) -> str:
    return f"log_line_{day:%Y%m%d}"


async def test_lines_keep_what_they_say(store, connection):
    fields = {"count": 3, "text": 'NUL \0 and \\u0000 and "\0"'}
    await add(store, [line(), line(level="error", request_id="r1", trace_id=TRACE, fields=fields)])
    first, second = await connection.fetch("SELECT *, fields->>'text' AS text FROM log_line ORDER BY level")
    assert (first["event"], first["trace_id"], first["request_id"], first["fields"]) == (
        "something",
        *[None] * 3,
    )
    assert (second["level"], second["request_id"], second["trace_id"].hex) == (40, "r1", TRACE)
    assert second["text"] == 'NUL  and \\u0000 and ""'


async def test_an_ended_frame_is_a_line(store, connection):
    frame = UUID("01932b6d-b4f0-7a51-9c3e-0d6f8a2b4c1e")
    us = 1_800_000_000_123_456
    given = (us, frame.bytes, "command", "ingest.write_readings", "done", "user:ann\0", "r1")
    await store.add_rows(
        [
            row_of_ended("ingest", Ended(*given, f"00-{TRACE}-b7ad6b7169203331-01", us // 1000 - 7)),
            row_of_ended("ingest", Ended(*given, "no trace at all", 0)),
        ]
    )
    first, second = await connection.fetch("SELECT * FROM log_line ORDER BY trace_id")
    assert (first["at"], first["level"], first["service"]) == (
        datetime(2027, 1, 15, 8, 0, 0, 123_456, UTC),
        20,
        "ingest",
    )
    assert (first["event"], first["request_id"], first["trace_id"].hex) == ("command_ended", "r1", TRACE)
    assert json.loads(first["fields"]) == {
        "topic": "ingest.write_readings",
        "ending": "done",
        "frame": str(frame),
        "caller": "user:ann",
        "ms_since_born": 7,
    }
    assert second["trace_id"] is None
    assert json.loads(second["fields"])["ms_since_born"] is None


async def test_a_line_finds_its_day_from_the_first_start_on(store, connection):
    await add(store, [line(), line(at=NOW + timedelta(days=3))])
    rows = await connection.fetch("SELECT tableoid::regclass::text FROM log_line ORDER BY at")
    assert [row[0] for row in rows] == [name_of(NOW), name_of(NOW + timedelta(days=3))]


async def test_a_line_with_a_wrong_clock_is_not_lost_and_moves_when_its_day_comes(
    store, connection, database
):
    soon = NOW + timedelta(days=1)
    await drop(database, name_of(soon))
    await add(store, [line(at=soon), line(at=NOW + timedelta(days=400))])
    assert await connection.fetchval("SELECT count(*) FROM log_line_other") == 2
    await store.keep_log(30)
    assert await connection.fetchval("SELECT count(*) FROM log_line_other") == 1
    assert await connection.fetchval("SELECT count(*) FROM log_line WHERE at = $1", soon) == 1


async def test_days_beyond_the_limit_are_dropped_and_the_coming_ones_made(store, connection, database):
    old = NOW - timedelta(days=31)
    await make(database, old)
    await add(store, [line(at=old), line(at=NOW - timedelta(days=40)), line(at=NOW - timedelta(days=2))])
    await store.keep_log(30)
    found = await days(connection)
    assert name_of(old) not in found
    assert name_of(NOW + timedelta(days=7)) in found
    assert await connection.fetchval("SELECT count(*) FROM log_line") == 1


async def test_while_a_backup_reads_the_table_nothing_is_dropped_and_nothing_waits(
    store, connection, database
):
    old = NOW - timedelta(days=31)
    await make(database, old)
    backup = await asyncpg.connect(database.admin_url)
    transaction = backup.transaction()
    await transaction.start()
    await backup.execute("LOCK TABLE worker.log_line IN ACCESS SHARE MODE")
    assert not await store.keep_log(30)
    await add(store, [line()])
    await backup.close()
    assert await store.keep_log(30)
    assert name_of(old) not in await days(connection)


async def test_the_service_may_not_change_the_schema_itself(connection):
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute("CREATE TABLE worker.other (id int)")


async def drop(database: Place, name: str) -> None:
    await as_admin(database, f"DROP TABLE worker.{name}")


async def make(database: Place, day: datetime) -> None:
    start, end = f"{day:%Y-%m-%d}T00:00Z", f"{day + timedelta(days=1):%Y-%m-%d}T00:00Z"
    name = f"worker.{name_of(day)}"
    bounds = f"FOR VALUES FROM ('{start}') TO ('{end}')"
    await as_admin(database, f"CREATE TABLE {name} PARTITION OF worker.log_line {bounds}")


async def as_admin(database: Place, sql: str) -> None:
    connection = await asyncpg.connect(database.admin_url)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()
