"""SQL about sessions and their refresh tokens."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from services.auth.rules import Person, Refreshing
from services.auth.store.accounts import PERSON, person_of
from services.auth.store.base import Base


@dataclass(frozen=True)
class Opened:
    """A session as it is stored when it opens."""

    id: UUID
    account_id: UUID
    created_at: datetime
    expires_at: datetime
    client: str
    agent: str
    token_hash: bytes


@dataclass(frozen=True)
class Living:
    """A session that can be refreshed, as its owner sees it."""

    id: UUID
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    client: str
    agent: str


class Sessions(Base):
    """One method, one statement."""

    async def add_session(self, opened: Opened) -> None:
        """Open a session with its first refresh token; its owner was seen."""
        sql = """
            WITH made AS (
                INSERT INTO session (id, account_id, created_at, last_used_at, expires_at, client, agent)
                VALUES ($1, $2, $3, $3, $4, $5, $6) RETURNING id
            ), seen AS (
                UPDATE account SET last_seen_at = $3 WHERE id = $2
            )
            INSERT INTO refresh_token (hash, session_id, made_at) SELECT $7, id, $3 FROM made
        """
        session = (opened.id, opened.account_id, opened.created_at, opened.expires_at)
        await self._db.execute(sql, *session, opened.client, opened.agent, opened.token_hash)

    async def lock_session_of(self, token_hash: bytes) -> UUID | None:
        """The session a token is or was of, held: of two tabs that refresh at once one waits."""
        sql = """
            SELECT session.id FROM session JOIN refresh_token ON session.id = session_id
             WHERE hash = $1 FOR UPDATE OF session
        """
        found = await self._db.fetchval(sql, token_hash)
        return None if found is None else UUID(int=found.int)

    async def refreshing(self, token_hash: bytes) -> tuple[Refreshing, Person] | None:
        """A token, its session and its owner, after `lock_session_of`."""
        sql = f"""
            SELECT session_id, used_at, locked_successor, expires_at, ended_at, opened_at, {PERSON}
              FROM refresh_token
              JOIN (SELECT id AS session_id, account_id, expires_at, ended_at, created_at AS opened_at
                      FROM session) AS session USING (session_id)
              JOIN account ON account.id = account_id
             WHERE hash = $1
        """  # noqa: S608 (constants of the code)
        row = await self._db.fetchrow(sql, token_hash)
        if row is None:
            return None
        token = Refreshing(
            session_id=UUID(int=row["session_id"].int),
            used_at=row["used_at"],
            locked_successor=row["locked_successor"],
            opened_at=row["opened_at"],
            expires_at=row["expires_at"],
            ended_at=row["ended_at"],
        )
        return token, person_of(row)

    async def rotate(
        self, used: bytes, made: bytes, locked: bytes, now: datetime, expires: datetime, client: str
    ) -> None:
        """Put a successor in the place of a token; the session goes on, and its owner was seen."""
        sql = """
            WITH used AS (
                UPDATE refresh_token SET used_at = $4, locked_successor = $3 WHERE hash = $1
                RETURNING session_id
            ), kept AS (
                UPDATE session SET last_used_at = $4, expires_at = $5, client = $6
                  FROM used WHERE session.id = session_id RETURNING account_id
            ), seen AS (
                UPDATE account SET last_seen_at = $4 FROM kept WHERE account.id = account_id
            )
            INSERT INTO refresh_token (hash, session_id, made_at) SELECT $2, session_id, $4 FROM used
        """
        await self._db.execute(sql, used, made, locked, now, expires, client)

    async def end_session(self, account_id: UUID, session_id: UUID, now: datetime) -> bool:
        """End one session of an account; False when there is none that lives."""
        sql = """
            UPDATE session SET ended_at = $3
             WHERE account_id = $1 AND id = $2 AND ended_at IS NULL AND expires_at > $3 RETURNING id
        """
        return await self._db.fetchval(sql, account_id, session_id, now) is not None

    async def end_sessions(self, account_id: UUID, now: datetime, but: UUID | None = None) -> list[UUID]:
        """End the sessions of an account, but one if there is one to stay; answers which lived."""
        sql = """
            UPDATE session SET ended_at = $2
             WHERE account_id = $1 AND ended_at IS NULL AND expires_at > $2 AND id IS DISTINCT FROM $3
            RETURNING id
        """
        return [UUID(int=row[0].int) for row in await self._db.fetch(sql, account_id, now, but)]

    async def sessions(self, account_id: UUID, now: datetime, most: int) -> list[Living]:
        """The living sessions of an account, the last used first."""
        sql = """
            SELECT id, created_at, last_used_at, expires_at, client, agent FROM session
             WHERE account_id = $1 AND ended_at IS NULL AND expires_at > $2
             ORDER BY last_used_at DESC, id LIMIT $3
        """
        rows = await self._db.fetch(sql, account_id, now, most)
        return [Living(UUID(int=row[0].int), *row[1:]) for row in rows]

    async def places(self, account_id: UUID) -> set[str]:
        """The addresses an account has signed in from before, as long as that is remembered."""
        sql = "SELECT DISTINCT client FROM session WHERE account_id = $1"
        return {row[0] for row in await self._db.fetch(sql, account_id)}

    async def ended_since(self, since: datetime, most: int) -> list[UUID]:
        """Sessions that ended before their time, the last ones first."""
        sql = "SELECT id FROM session WHERE ended_at > $1 ORDER BY ended_at DESC LIMIT $2"
        return [UUID(int=row[0].int) for row in await self._db.fetch(sql, since, most)]

    async def forget_successors(self, before: datetime) -> None:
        """Of tokens used before then the successor is said no more."""
        sql = """
            UPDATE refresh_token SET locked_successor = NULL
             WHERE used_at < $1 AND locked_successor IS NOT NULL
        """
        await self._db.execute(sql, before)

    async def forget_tokens(self, before: datetime, most: int) -> int:
        """Delete tokens used before then; answers how many."""
        sql = """
            DELETE FROM refresh_token WHERE hash IN (
                SELECT hash FROM refresh_token WHERE used_at < $1 LIMIT $2 FOR UPDATE SKIP LOCKED
            )
        """
        return _count(await self._db.execute(sql, before, most))

    async def forget_sessions(self, before: datetime, most: int) -> int:
        """Delete sessions that were over before then; answers how many."""
        sql = """
            DELETE FROM session WHERE id IN (
                SELECT id FROM session WHERE expires_at < $1 ORDER BY expires_at LIMIT $2
                FOR UPDATE SKIP LOCKED
            )
        """
        return _count(await self._db.execute(sql, before, most))


def _count(said: str) -> int:
    return int(said.rpartition(" ")[2])
