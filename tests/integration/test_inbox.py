"""The inbox tables on PostgreSQL: partitions come and go, rows are there once, locks are not waited for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import asyncpg
import msgspec
import pytest

from shared.bus.ids import keyed_id, uuid7
from shared.bus.inbox import BLANK_PACKED, AlreadyAnswered, CommitUnknown, Entry, PostgresInbox
from shared.bus.routes import Statement
from shared.contracts.base import ANONYMOUS
from shared.db import Database
from tests.servers import Place


@pytest.fixture
async def inbox(database: Place) -> AsyncIterator[PostgresInbox]:
    opened = Database(database.url("worker"), application_name="test")
    await opened.open()
    inbox = PostgresInbox(opened)
    await inbox.keep_partitions(24)
    yield inbox
    await opened.close()


@pytest.fixture
async def admin(database: Place) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database.admin_url)
    await connection.execute("SET search_path TO worker")
    yield connection
    await connection.close()


def entry(made: object = None) -> Entry:
    return Entry(made or uuid7(), b"h" * 16, False, b"\xc0")  # type: ignore[arg-type]


async def partitions(admin: asyncpg.Connection) -> set[str]:
    rows = await admin.fetch(
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'inbox'::regclass"
    )
    return {row[0] for row in rows}


def name_of(hours_ago: int) -> str:
    return f"inbox_{datetime.now(UTC) - timedelta(hours=hours_ago):%Y%m%d%H}"


async def test_there_is_a_partition_for_every_hour_a_frame_may_be_from(
    inbox: PostgresInbox, admin: asyncpg.Connection
) -> None:
    found = await partitions(admin)
    assert {name_of(24), name_of(1), name_of(0), name_of(-5), "inbox_keyed"} <= found
    now = int(datetime.now(UTC).timestamp() * 1000)
    hours = (-24, -1, 0, 5)
    await inbox.keep([entry(uuid7(now + hour * 3_600_000)) for hour in hours])
    assert await admin.fetchval("SELECT count(*) FROM inbox") == len(hours)


async def test_old_partitions_go_but_not_while_a_backup_reads_them(
    inbox: PostgresInbox, admin: asyncpg.Connection
) -> None:
    async with admin.transaction():
        await admin.execute(f"LOCK TABLE {name_of(20)} IN ACCESS SHARE MODE")
        await inbox.keep_partitions(2)
        found = await partitions(admin)
    assert name_of(20) in found
    assert not {name_of(hours) for hours in (4, 10, 24)} & found
    await inbox.keep_partitions(2)
    assert name_of(20) not in await partitions(admin)


async def test_keyed_rows_are_pruned_by_age(inbox: PostgresInbox, admin: asyncpg.Connection) -> None:
    old, new = (keyed_id(ANONYMOUS, "a.b", key) for key in ("old", "new"))
    await inbox.keep([entry(old), entry(new)])
    await admin.execute("UPDATE inbox SET at = now() - interval '25 hours' WHERE id = $1", old)
    await inbox.keep_partitions(24)
    assert set(await inbox.find([old, new])) == {new}


async def test_a_row_is_there_once_and_a_second_one_undoes_everything_beside_it(
    inbox: PostgresInbox, admin: asyncpg.Connection
) -> None:
    first, second = entry(), entry()
    async with inbox.unit() as unit:
        await unit.record([first])
    with pytest.raises(AlreadyAnswered):
        async with inbox.unit() as unit:
            await unit.record([second, first])
    assert set(await inbox.find([first.id, second.id])) == {first.id}
    assert await inbox.keep([first, second]) == {second.id}


async def test_a_locked_id_is_not_waited_for(inbox: PostgresInbox) -> None:
    one, two = uuid7(), uuid7()
    async with inbox.unit() as holder, inbox.unit() as other:
        assert await holder.lock([one]) == {one}
        assert await other.lock([one, two]) == {two}
    async with inbox.unit() as later:
        assert await later.lock([one]) == {one}


async def test_attempts_are_counted_in_committed_rows(inbox: PostgresInbox) -> None:
    made = uuid7()
    assert [await inbox.count_attempt(made) for _ in range(3)] == [1, 2, 3]


async def test_a_single_row_goes_with_the_commit_and_keeps_every_byte(inbox: PostgresInbox) -> None:
    reply, events = bytes(range(256)), b"'; DROP TABLE inbox; --\\"
    given = Entry(uuid7(), b"'\\\0x" * 4, True, reply, events)
    async with inbox.unit() as unit:
        await unit.record([given])
    assert await inbox.find([given.id]) == {given.id: given}


async def test_a_large_reply_is_kept_as_it_is_wherever_it_lies(
    inbox: PostgresInbox, admin: asyncpg.Connection
) -> None:
    large = [
        Entry(made, b"h" * 16, False, b"a" * 20_000) for made in (uuid7(), keyed_id(ANONYMOUS, "a", "k"))
    ]
    for given in large:
        async with inbox.unit() as unit:
            await unit.record([given])
    assert await inbox.find([given.id for given in large]) == {given.id: given for given in large}
    kept = await admin.fetch("SELECT pg_column_compression(reply) AS how, pg_column_size(reply) FROM inbox")
    assert [tuple(row) for row in kept] == [(None, 20_000)] * 2
    with pytest.raises(AlreadyAnswered):
        async with inbox.unit() as unit:
            await unit.record(large[:1])


async def test_two_transactions_with_one_row_have_one_effect(
    inbox: PostgresInbox, admin: asyncpg.Connection
) -> None:
    await admin.execute("CREATE TABLE effect (text text); GRANT ALL ON effect TO posthouse_worker")
    same = entry()

    async def run() -> None:
        async with inbox.unit() as unit:
            await unit.db.execute("INSERT INTO effect VALUES ('once')")
            await unit.record([same])

    ended = await asyncio.gather(*(run() for _ in range(4)), return_exceptions=True)
    assert sorted(type(each).__name__ for each in ended) == ["AlreadyAnswered"] * 3 + ["NoneType"]
    assert await admin.fetchval("SELECT count(*) FROM effect") == 1
    async with inbox.unit() as unit:
        await unit.record([entry()])


def counted(text: str) -> Statement[int]:
    sql = "made AS (INSERT INTO effect (text) VALUES ($1) RETURNING number)"
    return Statement(sql, (text,), int)


@pytest.fixture
async def numbered(admin: asyncpg.Connection) -> None:
    await admin.execute(
        "CREATE TABLE effect (number integer GENERATED ALWAYS AS IDENTITY (START 300), text text UNIQUE);"
        "GRANT ALL ON effect TO posthouse_worker"
    )


def blank_reply() -> Entry:
    return Entry(uuid7(), b"h" * 16, False, b"\x93'\\" + BLANK_PACKED + b"\xce")


@pytest.mark.usefixtures("numbered")
async def test_a_statement_and_its_row_are_one_and_the_reply_tells_the_number(inbox: PostgresInbox) -> None:
    given = blank_reply()
    reply = await inbox.with_row(counted("a"), given)
    assert reply == b"\x93'\\" + b"\xce\x00\x00\x01\x2c" + b"\xce"
    assert await inbox.find([given.id]) == {given.id: msgspec.structs.replace(given, reply=reply)}
    async with inbox.unit() as unit:
        assert await unit.carry_out(counted("b")) == 301


@pytest.mark.usefixtures("numbered")
async def test_one_statement_has_one_effect_however_often_it_comes(
    inbox: PostgresInbox, admin: asyncpg.Connection
) -> None:
    same = blank_reply()
    runs = [inbox.with_row(counted(str(number)), same) for number in range(4)]
    ended = await asyncio.gather(*runs, return_exceptions=True)
    assert sorted(type(each).__name__ for each in ended) == ["AlreadyAnswered"] * 3 + ["bytes"]
    assert await admin.fetchval("SELECT count(*) FROM effect") == 1


@pytest.mark.usefixtures("numbered")
async def test_a_statement_that_fails_leaves_no_row(inbox: PostgresInbox) -> None:
    await inbox.with_row(counted("a"), blank_reply())
    given = blank_reply()
    with pytest.raises(asyncpg.UniqueViolationError):
        await inbox.with_row(counted("a"), given)
    assert await inbox.find([given.id]) == {}


@pytest.mark.usefixtures("numbered")
async def test_when_the_connection_goes_while_a_statement_runs_nobody_knows(
    inbox: PostgresInbox, admin: asyncpg.Connection
) -> None:
    given = blank_reply()
    await admin.execute("BEGIN; LOCK TABLE effect")
    running = asyncio.create_task(inbox.with_row(counted("a"), given))
    async with asyncio.timeout(10):
        while not (pid := await admin.fetchval("SELECT pid FROM pg_locks WHERE NOT granted")):  # noqa: ASYNC110
            await asyncio.sleep(0)  # a lock sets no event
    await admin.fetchval("SELECT pg_terminate_backend($1)", pid)
    await admin.execute("ROLLBACK")
    with pytest.raises(CommitUnknown):
        await running
    assert await inbox.find([given.id]) == {}


async def test_what_a_handler_did_is_undone_when_it_raises(
    inbox: PostgresInbox, admin: asyncpg.Connection
) -> None:
    given = entry()

    async def fail() -> None:
        async with inbox.unit() as unit:
            await unit.record([given])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert await inbox.find([given.id]) == {}
    assert await admin.fetchval("SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in%'") == 0
