"""An outage of the database is told from a bug, holds nobody for ever, and is over when it is over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from shared.db import Database, Patience, Unsuitable, again, away
from shared.errors import Away
from tests.line import Line, line_to
from tests.servers import Place

if TYPE_CHECKING:
    from shared.db import Connection

SHORT = Patience(connect=1.0, acquire=1.0, command=0.5)


@pytest.fixture
async def line(database: Place) -> AsyncIterator[Line]:
    parts = urlsplit(database.admin_url)
    async with line_to(parts.hostname or "", parts.port or 5432) as line:
        yield line


@pytest.fixture
async def db(database: Place, line: Line) -> AsyncIterator[Database]:
    """A service's database at the end of a line."""
    parts = urlsplit(database.url("auth"))
    account = parts.netloc.rpartition("@")[0]
    url = urlunsplit(parts._replace(netloc=f"{account}@127.0.0.1:{line.port}"))
    db = Database(url, size=2, application_name="test", patience=SHORT)
    yield db
    await db.close()


async def test_it_can_be_opened_as_soon_as_the_server_answers(db: Database, line: Line) -> None:
    await line.close()
    with pytest.raises(Away):
        await db.open()
    await line.open()
    await db.open()
    assert await db.pool.fetchval("SELECT 1") == 1


async def test_a_server_that_hangs_holds_nobody_for_ever(db: Database, line: Line) -> None:
    await db.open()
    line.freeze()
    with pytest.raises(TimeoutError) as statement:
        await db.pool.fetchval("SELECT 1")
    assert away(statement.value)
    with pytest.raises(Away):
        await db.ping()
    line.thaw()
    await db.ping()


async def test_a_cut_connection_is_an_outage_and_the_next_one_works(db: Database, line: Line) -> None:
    await db.open()

    async def cut(_: Connection) -> None:
        line.cut()

    assert away(await error_after(db.transaction, cut))
    await db.ping()


async def test_a_server_that_ends_our_connection_is_an_outage(db: Database, database: Place) -> None:
    await db.open()
    admin = await asyncpg.connect(database.admin_url)

    async def terminate(connection: Connection) -> None:
        pid = await connection.fetchval("SELECT pg_backend_pid()")
        await admin.fetchval("SELECT pg_terminate_backend($1, 5000)", pid)

    assert away(await error_after(db.transaction, terminate))
    await admin.close()


async def test_a_connection_that_went_between_two_statements_is_an_outage(db: Database, line: Line) -> None:
    await db.open()
    lost = asyncio.Event()

    async def cut(connection: Connection) -> None:
        connection.add_termination_listener(lambda _: lost.set())
        line.cut()
        await lost.wait()

    for place in (db.connection, db.transaction):
        lost.clear()
        assert away(await error_after(place, cut))
    await db.ping()


async def test_the_last_words_of_a_dying_server_are_an_outage(
    db: Database, line: Line, database: Place
) -> None:
    await db.open()
    admin = await asyncpg.connect(database.admin_url)

    async def terminate(connection: Connection) -> None:
        line.passes_ends = False
        pid = await connection.fetchval("SELECT pg_backend_pid()")
        await admin.fetchval("SELECT pg_terminate_backend($1, 5000)", pid)
        await line.end_was_kept.wait()
        await db.ping()  # what came before on this line has been read by now

    for place in (db.connection, db.transaction):
        line.end_was_kept.clear()
        assert away(await error_after(place, terminate))
    await admin.close()


async def test_a_transaction_that_raises_leaves_nothing_though_nothing_is_reset(
    db: Database, database: Place
) -> None:
    admin = await asyncpg.connect(database.admin_url)
    await admin.execute("CREATE TABLE auth.mark (id int)")
    await admin.close()
    await db.open()

    async def insert(connection: Connection) -> None:
        await connection.execute("INSERT INTO mark VALUES (1); SELECT 1 / 0")

    assert isinstance(await error_after(db.transaction, insert), asyncpg.DivisionByZeroError)
    assert await db.pool.fetchval("SELECT count(*) FROM mark") == 0


async def error_after(
    place: Callable[[], AbstractAsyncContextManager[Connection]], act: Callable[[Connection], Awaitable[None]]
) -> BaseException:
    """What a block ends with in which `act` is followed by another statement."""
    try:
        async with place() as connection:
            await act(connection)
            await connection.fetchval("SELECT 1")
    except (Away, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        return error
    raise AssertionError("nothing went wrong")


async def test_every_connection_taken_is_said_in_time(db: Database) -> None:
    await db.open()
    async with db.connection(), db.connection():
        with pytest.raises(Away):
            await db.ping()


async def test_a_bug_is_no_outage(db: Database) -> None:
    await db.open()
    with pytest.raises(asyncpg.DivisionByZeroError) as bug:
        await db.pool.fetchval("SELECT 1 / 0")
    assert not away(bug.value)
    connection = await db.pool.acquire()
    await db.pool.release(connection)
    with pytest.raises(asyncpg.InterfaceError) as misuse:
        await connection.fetchval("SELECT 1")
    assert not away(misuse.value)


async def test_a_wrong_password_is_no_outage(database: Place) -> None:
    url = database.url("auth").replace("posthouse_auth:", "posthouse_auth:x")
    db = Database(url, application_name="test")
    with pytest.raises(asyncpg.InvalidPasswordError) as refused:
        await db.open()
    assert not away(refused.value)
    await db.close()


async def test_a_deadlock_is_tried_again(database: Place) -> None:
    assert again(asyncpg.DeadlockDetectedError("deadlock detected"))
    assert not away(asyncpg.DeadlockDetectedError("deadlock detected"))


async def test_a_server_that_confirms_before_it_has_written_is_refused(database: Place) -> None:
    admin = await asyncpg.connect(database.admin_url)
    await admin.execute(f"ALTER DATABASE {database.name} SET synchronous_commit = off")
    await admin.close()
    db = Database(database.url("auth"), application_name="test")
    with pytest.raises(Unsuitable, match="synchronous_commit is 'off'"):
        await db.open()
    await db.close()


async def test_a_table_that_was_tiny_when_a_plan_was_made_is_looked_up_by_index(db: Database) -> None:
    await db.open()
    async with db.connection() as connection:
        await connection.execute("CREATE TEMPORARY TABLE tiny (id integer PRIMARY KEY)")
        await connection.execute("INSERT INTO tiny VALUES (1); ANALYZE tiny")
        plan = await connection.fetchval("EXPLAIN SELECT FROM tiny WHERE id = 1")
    assert plan.startswith("Index"), plan
