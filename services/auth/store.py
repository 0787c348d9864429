"""All SQL of the schema auth."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from services.auth.rules import Person, key_of
from services.auth.tokens import LockedKey
from shared.contracts.auth import SigningKey


@dataclass(frozen=True)
class Credentials:
    """Whom a name stands for, and what proves it."""

    person: Person
    password_hash: str


class Store:
    """One method, one statement."""

    def __init__(self, db: Any) -> None:
        self._db = db

    async def is_set_up(self) -> bool:
        """Whether the first account was ever made."""
        sql = "SELECT EXISTS (SELECT FROM first_account)"
        return bool(await self._db.fetchval(sql))

    async def add_first_account(self, person: Person, password_hash: str) -> bool:
        """Add the one first account; False when there was one, even at the same moment."""
        sql = """
            WITH first AS (
                INSERT INTO first_account (account_id, made_at) VALUES ($1, $9)
                ON CONFLICT DO NOTHING RETURNING account_id
            )
            INSERT INTO account
                   (id, project, name, name_key, email, email_key, password_hash, roles, created_at)
            SELECT account_id, $2, $3, $4, $5, $6, $7, $8, $9 FROM first
            RETURNING id
        """
        made = await self._db.fetchval(
            sql,
            person.id,
            person.project,
            person.name,
            key_of(person.name),
            person.email,
            key_of(person.email),
            password_hash,
            person.roles,
            person.created_at,
        )
        return made is not None

    async def credentials(self, project: str, name_or_email: str) -> Credentials | None:
        """The account a name or an e-mail address stands for; no name contains an @."""
        sql = """
            SELECT id, project, name, email, roles, created_at, password_hash FROM account
             WHERE project = $1 AND deleted_at IS NULL AND (name_key = $2 OR email_key = $2)
        """
        row = await self._db.fetchrow(sql, project, key_of(name_or_email))
        if row is None:
            return None
        person = Person(row[0], row[1], row[2], row[3], tuple(row[4]), row[5])
        return Credentials(person, row["password_hash"])

    async def replace_hash(self, account_id: UUID, old: str, new: str) -> None:
        """Store the same password's new hash, unless the password was changed meanwhile."""
        sql = "UPDATE account SET password_hash = $3 WHERE id = $1 AND password_hash = $2"
        await self._db.execute(sql, account_id, old, new)

    async def add_session(self, session_id: UUID, account_id: UUID, now: datetime, expires: datetime) -> None:
        """Open a session."""
        sql = "INSERT INTO session (id, account_id, created_at, expires_at) VALUES ($1, $2, $3, $4)"
        await self._db.execute(sql, session_id, account_id, now, expires)

    async def forget_sessions(self, before: datetime) -> None:
        """Delete the sessions that ended longest ago, at most 10,000 of them."""
        sql = """
            DELETE FROM session WHERE id IN (
                SELECT id FROM session WHERE expires_at < $1 ORDER BY expires_at LIMIT 10000
                FOR UPDATE SKIP LOCKED
            )
        """
        await self._db.execute(sql, before)

    async def signing_key(self) -> LockedKey | None:
        """The key that signs now; None before the first was made."""
        sql = "SELECT kid, public_key, locked_private_key FROM signing_key WHERE retired_at IS NULL"
        row = await self._db.fetchrow(sql)
        return LockedKey(*row) if row else None

    async def add_signing_key(self, key: LockedKey, now: datetime) -> None:
        """Offer the first key; does nothing when another is there, even from the same moment."""
        sql = """
            INSERT INTO signing_key (kid, public_key, locked_private_key, created_at)
            VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING
        """
        await self._db.execute(sql, key.kid, key.public_key, key.locked_private_key, now)

    async def public_keys(self, since: datetime) -> tuple[SigningKey, ...]:
        """Keys in use now or retired after `since`."""
        sql = """
            SELECT kid, public_key FROM signing_key
             WHERE retired_at IS NULL OR retired_at > $1 ORDER BY created_at, kid
        """
        return tuple(SigningKey(kid=row[0], public_key=row[1]) for row in await self._db.fetch(sql, since))
