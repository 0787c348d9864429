"""The inbox: a command's effects, its reply and its events are committed with one row per frame id."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from typing import Any, Protocol
from uuid import UUID

import asyncpg
import msgspec

from shared.bus.routes import Guess, Statement
from shared.db import Database, again, away, is_lost

# Rows of keyed ids go in pieces with a pause, so that pruning never competes with commands.
PRUNE_PAUSE_SECONDS = 0.1
# From here on writing and reading a reply in hexadecimal digits costs more than a journey.
LARGE_REPLY = 8_192
# Stands in a reply for the number that only its statement knows. In msgpack it is BLANK_PACKED, which no text
# can contain; the reply that is kept has the number in its place, as an integer of the same five bytes.
BLANK = 0xFFFFFFFF
BLANK_PACKED = b"\xce\xff\xff\xff\xff"


class Entry(msgspec.Struct, frozen=True, gc=False):
    """What an inbox row keeps: the hash of the body, the reply or the refusal, the encoded events."""

    id: UUID
    body_hash: bytes
    refused: bool
    reply: bytes
    events: bytes = b""


class AlreadyAnswered(Exception):
    """Another process committed one of these frame ids meanwhile; everything here was rolled back."""


class CommitUnknown(Exception):
    """The connection was lost while the commit was on its way: it may have happened."""


class Unit(Protocol):
    """One transaction of a handler; `db` is what its store works on."""

    db: Any

    async def lock(self, ids: Sequence[UUID]) -> set[UUID]:
        """The ids nobody else is working on now; held until the end of the transaction."""

    async def carry_out(self, statement: Statement[Any]) -> int:
        """Run it here; the number it made."""

    async def record(self, entries: Sequence[Entry]) -> None:
        """Add the rows; raises AlreadyAnswered when one is there already."""


class Inbox(Protocol):
    """Where a service proves what it has done."""

    @property
    def pool(self) -> Any:
        """What queries read from, without a transaction."""

    def unit(self) -> Any:
        """An async context manager giving a Unit: commits at the end, rolls back on an error."""

    async def at_once(self, guess: Guess, entries: Sequence[Entry]) -> bool:
        """Try a guess together with its rows; False, and nothing was done, when it was wrong."""

    async def with_row(self, statement: Statement[Any], entry: Entry) -> bytes:
        """Run it together with its row, whose reply has BLANK in place of the number; the reply that is kept.

        Raises AlreadyAnswered and CommitUnknown.
        """

    async def find(self, ids: Sequence[UUID]) -> Mapping[UUID, Entry]:
        """The rows there are."""

    async def keep(self, entries: Sequence[Entry]) -> set[UUID]:
        """Add rows by themselves (refusals); the ids added: those already there stay as they are."""

    async def count_attempt(self, frame_id: UUID) -> int:
        """Count one more run of a redelivered frame, committed before its handler starts."""

    async def probe(self) -> None:
        """Raise while the database is away."""

    def away(self, error: BaseException) -> bool:
        """Whether an error means that the database is away rather than that the handler is wrong."""

    def again(self, error: BaseException) -> bool:
        """Whether the same frame may succeed in a new transaction at once (a deadlock)."""


class PostgresInbox:
    """The inbox tables of a service's schema, through its pool."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @property
    def pool(self) -> Any:
        """For queries, which need no transaction."""
        return self._database.pool

    @asynccontextmanager
    async def unit(self) -> AsyncIterator[PostgresUnit]:
        """A transaction; raises CommitUnknown when the connection breaks during the commit."""
        async with self._database.connection() as connection:
            await connection.execute("BEGIN")
            unit = PostgresUnit(connection)
            try:
                yield unit
                await unit.commit()
            except CommitUnknown:
                raise
            except BaseException:
                if not is_lost(connection) and connection.is_in_transaction():
                    await connection.execute("ROLLBACK")
                raise

    async def at_once(self, guess: Guess, entries: Sequence[Entry]) -> bool:
        """One statement is one transaction; raises CommitUnknown when the connection breaks meanwhile."""
        sql = _at_once(guess.sql, guess.proof, len(guess.arguments))
        async with self._database.connection() as connection:
            try:
                with _committing():
                    await connection.execute(sql, *guess.arguments, *_columns(entries))
            except (asyncpg.DivisionByZeroError, asyncpg.UniqueViolationError):
                return False
            except Exception as error:
                if again(error):
                    return False
                raise
        return True

    async def with_row(self, statement: Statement[Any], entry: Entry) -> bytes:
        """One statement is one transaction."""
        before, after = entry.reply.split(BLANK_PACKED)
        sql = _with_row(statement.sql, len(statement.arguments))
        row = entry.id, entry.body_hash, before, after
        async with self._database.connection() as connection:
            try:
                with _committing():
                    reply: bytes = await connection.fetchval(sql, *statement.arguments, *row)
            except asyncpg.UniqueViolationError as error:
                raise (AlreadyAnswered() if _of_inbox(error) else error) from error
        return reply

    async def find(self, ids: Sequence[UUID]) -> Mapping[UUID, Entry]:
        """The rows there are."""
        sql = "SELECT id, body_hash, refused, reply, events FROM inbox WHERE id = ANY($1::uuid[])"
        rows = await self._database.pool.fetch(sql, list(ids))
        return {row[0]: Entry(UUID(int=row[0].int), row[1], row[2], row[3], row[4] or b"") for row in rows}

    async def keep(self, entries: Sequence[Entry]) -> set[UUID]:
        """Add rows by themselves; the ids added: those already there stay as they are."""
        rows = await self._database.pool.fetch(f"{_INSERT} RETURNING id", *_columns(entries))
        return {row[0] for row in rows}

    async def count_attempt(self, frame_id: UUID) -> int:
        """Count one more run of a redelivered frame."""
        sql = """
            INSERT INTO delivery_attempt (frame_id, attempts) VALUES ($1, 1)
            ON CONFLICT (frame_id) DO UPDATE SET attempts = delivery_attempt.attempts + 1, at = now()
            RETURNING attempts
        """
        attempts: int = await self._database.pool.fetchval(sql, frame_id)
        return attempts

    async def probe(self) -> None:
        """Raise while the database is away."""
        await self._database.ping()

    def away(self, error: BaseException) -> bool:
        """Whether the database is away."""
        return away(error)

    def again(self, error: BaseException) -> bool:
        """Whether a new transaction may succeed at once."""
        return again(error)

    async def keep_partitions(self, keep_hours: int, ahead_hours: int = 6) -> None:
        """Make the partitions of the next hours and drop what is older than `keep_hours`."""
        await self._database.pool.fetchval("SELECT keep_inbox($1, $2)", keep_hours, ahead_hours)
        while True:
            deleted = await self._database.pool.fetchval("SELECT prune_inbox($1)", keep_hours)
            if not deleted:
                return
            await asyncio.sleep(PRUNE_PAUSE_SECONDS)


class PostgresUnit:
    """One transaction on one connection; handlers begin no other inside it."""

    def __init__(self, connection: Any) -> None:
        self.db = connection
        self._last: Entry | None = None

    async def lock(self, ids: Sequence[UUID]) -> set[UUID]:
        """Transaction-level advisory locks that are not waited for."""
        sql = """
            SELECT id FROM unnest($1::uuid[], $2::bigint[]) AS want (id, key)
            WHERE pg_try_advisory_xact_lock(key)
        """
        rows = await self.db.fetch(sql, list(ids), [_lock_key(frame_id) for frame_id in ids])
        return {row[0] for row in rows}

    async def carry_out(self, statement: Statement[Any]) -> int:
        """Run it here; the number it made."""
        sql = f"WITH {statement.sql} SELECT number FROM made"  # noqa: S608 (constants of the code)
        number: int = await self.db.fetchval(sql, *statement.arguments)
        return number

    async def record(self, entries: Sequence[Entry]) -> None:
        """Add the rows, sorted by id so that two transactions wait for each other in one order only.

        A single row that is small is added with the commit, in one journey to the server.
        """
        if len(entries) == 1 and self._last is None and len(entries[0].reply) < LARGE_REPLY:
            self._last = entries[0]
            return
        if not entries:
            return
        said = await self.db.execute(_INSERT, *_columns(entries))
        if said != f"INSERT 0 {len(entries)}":
            raise AlreadyAnswered

    async def commit(self) -> None:
        """Commit; raises CommitUnknown when the connection breaks meanwhile."""
        try:
            with _committing():
                await self.db.execute("COMMIT" if self._last is None else f"{_values(self._last)}; COMMIT")
        except asyncpg.UniqueViolationError as error:
            if self._last is not None and _of_inbox(error):
                raise AlreadyAnswered from error
            raise


@contextmanager
def _committing() -> Iterator[None]:
    """Say what a lost connection means while a commit is on its way."""
    try:
        yield
    except asyncpg.LockNotAvailableError:
        raise  # something was waited for, the commit was not reached
    except BaseException as error:
        if away(error):
            raise CommitUnknown(str(error)) from error
        raise


def _of_inbox(error: asyncpg.UniqueViolationError) -> bool:
    return (error.table_name or "").startswith("inbox")


@cache
def _at_once(sql: str, proof: str, count: int) -> str:
    """A guess and its inbox rows as one statement; a wrong one divides by zero, which undoes everything."""
    first = [f"${count + number}" for number in range(1, 6)]
    return f"""
        WITH {sql}, kept AS (
            INSERT INTO inbox (id, body_hash, refused, reply, events)
            SELECT * FROM unnest({first[0]}::uuid[], {first[1]}::bytea[], {first[2]}::boolean[],
                                 {first[3]}::bytea[], {first[4]}::bytea[]) AS new (id)
            ORDER BY new.id
        )
        SELECT 1 / ({proof})::integer
    """  # noqa: S608 (constants of the code)


@cache
def _with_row(sql: str, count: int) -> str:
    """A statement and its inbox row as one; what `made` made gets into the reply."""
    own_id, body_hash, before, after = (f"${count + number}" for number in range(1, 5))
    return f"""
        WITH {sql}, kept AS (
            INSERT INTO inbox (id, body_hash, refused, reply)
            SELECT {own_id}::uuid, {body_hash}::bytea, false,
                   {before}::bytea || '\\xce'::bytea || int4send(number) || {after}::bytea
            FROM made
            RETURNING reply
        )
        SELECT reply FROM kept
    """  # noqa: S608 (constants of the code)


def _values(entry: Entry) -> str:
    """One row as a statement in text: every value is written in hexadecimal digits only."""
    events = f"decode('{entry.events.hex()}', 'hex')" if entry.events else "NULL"
    return (
        "INSERT INTO inbox (id, body_hash, refused, reply, events) VALUES "  # noqa: S608 (digits only)
        f"('{entry.id.hex}', decode('{entry.body_hash.hex()}', 'hex'), {entry.refused},"
        f" decode('{entry.reply.hex()}', 'hex'), {events})"
    )


_INSERT = """
    INSERT INTO inbox (id, body_hash, refused, reply, events)
    SELECT * FROM unnest($1::uuid[], $2::bytea[], $3::boolean[], $4::bytea[], $5::bytea[]) AS new (id)
    ORDER BY new.id
    ON CONFLICT (id) DO NOTHING
"""


def _columns(entries: Sequence[Entry]) -> tuple[list[Any], ...]:
    return (
        [entry.id for entry in entries],
        [entry.body_hash for entry in entries],
        [entry.refused for entry in entries],
        [entry.reply for entry in entries],
        [entry.events or None for entry in entries],
    )


def _lock_key(frame_id: UUID) -> int:
    digest = hashlib.blake2b(frame_id.bytes, digest_size=8, person=b"inbox").digest()
    return int.from_bytes(digest, "big", signed=True)
