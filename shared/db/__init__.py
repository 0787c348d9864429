"""PostgreSQL: one pool per process, and which of its errors mean that it is away."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import asyncpg
from asyncpg import exceptions as pg

from shared.errors import Away

if TYPE_CHECKING:
    Pool = asyncpg.Pool[asyncpg.Record]
    Connection = asyncpg.pool.PoolConnectionProxy[asyncpg.Record]

OLDEST_SERVER = 15
BY_INDEX = "SET enable_seqscan = off; SET jit = off"
"""A plan made while a table was tiny reads all of it, and is kept while the table grows, until the next
ANALYZE; that of a foreign key too. What has no index to go by still reads it all."""


@dataclass(frozen=True)
class Patience:
    """How many seconds a server that does not answer is waited for.

    `command` is longer than the server's own `statement_timeout` (30 s, see migrate.py): what ends here
    is a server that no longer answers, not a slow statement.
    """

    connect: float = 5.0
    acquire: float = 5.0
    command: float = 32.0


class Unsuitable(Exception):
    """The server answers but cannot keep our promises; says what to change."""


class Database:
    """A pool of `size` connections, opened as they are needed; usable again by itself after an outage."""

    def __init__(
        self, url: str, *, size: int = 8, application_name: str, patience: Patience = Patience()
    ) -> None:
        self._url = url
        self._patience = patience
        self._size = size
        self._application_name = application_name
        self._pool: Pool | None = None

    async def open(self) -> None:
        """Connect once; raises Away while the server does not answer (try again), Unsuitable for ever."""
        if self._pool is None:
            self._pool = await asyncpg.create_pool(
                self._url,
                min_size=0,
                max_size=self._size,
                max_queries=1_000_000,
                max_inactive_connection_lifetime=300,
                timeout=self._patience.connect,
                command_timeout=self._patience.command,
                server_settings={"application_name": self._application_name},
                init=_suitable,
                reset=_nothing_to_reset,
            )
        await self.ping()

    @property
    def pool(self) -> Pool:
        """The asyncpg pool, for statements outside a transaction."""
        if self._pool is None:
            raise RuntimeError("the database is not open")
        return self._pool

    def connections(self, state: str) -> int:
        """How many connections are `busy` or `idle`, or may be open at `most`."""
        if self._pool is None or state == "most":
            return self._size if state == "most" else 0
        idle = self._pool.get_idle_size()
        return idle if state == "idle" else self._pool.get_size() - idle

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection of the pool; raises Away when there is none to be had in time, or when it is lost."""
        try:
            async with asyncio.timeout(self._patience.acquire):  # asyncpg's own limit costs a task
                connection = await self.pool.acquire()
        except Exception as error:
            if isinstance(error, OSError) or away(error):
                raise Away(f"no connection to PostgreSQL: {str(error) or type(error).__name__}") from error
            raise
        try:
            yield connection
        except pg.InterfaceError as error:
            if is_lost(connection):
                raise Away("the connection to PostgreSQL was lost") from error
            raise
        finally:
            await self.pool.release(connection)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A connection in a transaction, committed unless the block raises."""
        async with self.connection() as connection, connection.transaction():
            yield connection

    async def ping(self) -> None:
        """Return when the server has answered; raises what `away` knows when it does not."""
        async with self.connection() as connection:
            await connection.execute("SELECT 1", timeout=self._patience.acquire)

    async def close(self) -> None:
        """Close every connection; waits 5 s for those in use, then cuts them."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await _close(pool, self._patience.connect)


def is_lost(connection: Connection) -> bool:
    """Whether a connection that was not given back is gone; asyncpg takes a broken one from its holder."""
    try:
        return connection.is_closed()
    except pg.InterfaceError:
        return True


def away(error: BaseException) -> bool:
    """Whether an error means that the database does not answer, restarts or cannot write: not a bug of ours.

    Codes: https://www.postgresql.org/docs/current/errcodes-appendix.html
    """
    if isinstance(error, pg.InterfaceError):
        return "is clos" in str(error)  # "connection is closed", "pool is closing"
    if isinstance(error, pg.InternalClientError):
        return "cannot switch to state" in str(error)  # after the last words of a server that dies
    if isinstance(error, OSError):
        return isinstance(error, _AWAY_OS) or error.errno in _AWAY_ERRNO
    return isinstance(error, _AWAY) and not isinstance(error, pg.ProtocolViolationError)


def again(error: BaseException) -> bool:
    """Whether a new transaction may succeed at once: after a deadlock, or a plan outdated by a migration."""
    return isinstance(error, _AGAIN)


_AWAY = (
    Away,
    pg.PostgresConnectionError,  # class 08
    pg.InsufficientResourcesError,  # class 53: disk full, out of memory, too many connections
    pg.AdminShutdownError,
    pg.CrashShutdownError,
    pg.CannotConnectNowError,
    pg.PostgresIOError,
    pg.InvalidCatalogNameError,  # the database itself is not there: a restore is on its way
    pg.LockNotAvailableError,  # another transaction holds what we need for longer than lock_timeout
    pg.ReadOnlySQLTransactionError,  # a standby before its promotion
)
_AWAY_OS = (ConnectionError, TimeoutError, socket.gaierror)
_AWAY_ERRNO = {errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.ENETUNREACH, errno.ENETDOWN}
_AGAIN = (pg.DeadlockDetectedError, pg.SerializationError, pg.InvalidCachedStatementError)


async def _suitable(connection: Any) -> None:
    version = connection.get_server_version().major
    if version < OLDEST_SERVER:
        raise Unsuitable(f"PostgreSQL {version} is too old: {OLDEST_SERVER} or later is needed.")
    await connection.execute(BY_INDEX)
    commit = await connection.fetchval("SHOW synchronous_commit")
    if commit not in ("on", "remote_apply"):
        raise Unsuitable(
            f"synchronous_commit is {commit!r} for this role: a 2xx would not mean that it is on disk. "
            "Set it to 'on' in the server's configuration or with ALTER ROLE."
        )


async def _nothing_to_reset(connection: Any) -> None:
    """Saves asyncpg's `RESET ALL` at every release.

    Safe because a session holds nothing but what every one begins with: SET LOCAL, pg_advisory_xact_lock
    and cursors in transactions only; asyncpg rolls an open transaction back by itself.
    """


async def _close(pool: Pool, seconds: float) -> None:
    try:
        await asyncio.wait_for(pool.close(), seconds)
    except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        pool.terminate()
