"""SQL about accounts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from services.auth.rules import Person, key_of
from services.auth.store.base import Base
from shared.errors import Conflict

PERSON = "id, project, name, email, roles, created_at, deleted_at, purge_at, deleted_by, last_seen_at"


@dataclass(frozen=True)
class Credentials:
    """Whom a name stands for, and what proves it."""

    person: Person
    password_hash: str


def person_of(row: Any) -> Person:
    """A row of PERSON; its ids are plain ones, which cross the wire."""
    by = row["deleted_by"]
    return Person(
        id=UUID(int=row["id"].int),
        project=row["project"],
        name=row["name"],
        email=row["email"],
        roles=tuple(row["roles"]),
        created_at=row["created_at"],
        deleted_at=row["deleted_at"],
        purge_at=row["purge_at"],
        deleted_by=None if by is None else UUID(int=by.int),
        last_seen_at=row["last_seen_at"],
    )


class Accounts(Base):
    """One method, one statement."""

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
        return await self._db.fetchval(sql, *_columns(person, password_hash)) is not None

    async def add_account(self, person: Person, password_hash: str) -> bool:
        """Add an account; False when its name or its address is taken, even at the same moment."""
        sql = """
            INSERT INTO account
                   (id, project, name, name_key, email, email_key, password_hash, roles, created_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
            ON CONFLICT DO NOTHING RETURNING id
        """
        return await self._db.fetchval(sql, *_columns(person, password_hash)) is not None

    async def credentials(self, project: str, name_or_email: str) -> Credentials | None:
        """The account, a deleted one too, a name or an address stands for; no name contains an @."""
        sql = f"""
            SELECT {PERSON}, password_hash FROM account
             WHERE project = $1 AND (name_key = $2 OR email_key = $2)
        """  # noqa: S608 (constants of the code)
        row = await self._db.fetchrow(sql, project, key_of(name_or_email))
        return None if row is None else Credentials(person_of(row), row["password_hash"])

    async def own_credentials(self, project: str, account_id: UUID) -> Credentials | None:
        """A living account of a project by its id, held until the end of the transaction."""
        sql = f"""
            SELECT {PERSON}, password_hash FROM account
             WHERE project = $1 AND id = $2 AND deleted_at IS NULL FOR UPDATE
        """  # noqa: S608 (constants of the code)
        row = await self._db.fetchrow(sql, project, account_id)
        return None if row is None else Credentials(person_of(row), row["password_hash"])

    async def person(self, project: str, account_id: UUID) -> Person | None:
        """An account of a project, deleted or not."""
        sql = f"SELECT {PERSON} FROM account WHERE project = $1 AND id = $2"  # noqa: S608
        row = await self._db.fetchrow(sql, project, account_id)
        return None if row is None else person_of(row)

    async def people(self, project: str, after: UUID, limit: int) -> list[Person]:
        """Accounts made after that one, the oldest first."""
        sql = f"SELECT {PERSON} FROM account WHERE project = $1 AND id > $2 ORDER BY id LIMIT $3"  # noqa: S608
        return [person_of(row) for row in await self._db.fetch(sql, project, after, limit)]

    async def people_before(self, project: str, before: UUID, limit: int) -> list[Person]:
        """Accounts made before that one, the newest first."""
        sql = f"""
            SELECT {PERSON} FROM account WHERE project = $1 AND id < $2 ORDER BY id DESC LIMIT $3
        """  # noqa: S608
        return [person_of(row) for row in await self._db.fetch(sql, project, before, limit)]

    async def lock_administrators(self, project: str) -> set[UUID]:
        """The living administrators; held, so that the last two cannot go at the same moment."""
        sql = """
            SELECT id FROM account
             WHERE project = $1 AND 'administrator' = ANY(roles) AND deleted_at IS NULL
             ORDER BY id FOR UPDATE
        """
        return {row[0] for row in await self._db.fetch(sql, project)}

    async def change(self, person: Person) -> None:
        """Store a name, an address and roles; raises Conflict when another account has one of them."""
        sql = """
            UPDATE account SET name = $2, name_key = $3, email = $4, email_key = $5, roles = $6 WHERE id = $1
        """
        arguments = (person.name, key_of(person.name), person.email, key_of(person.email), person.roles)
        try:
            await self._db.execute(sql, person.id, *arguments)
        except asyncpg.UniqueViolationError:
            raise taken() from None

    async def set_password(self, account_id: UUID, password_hash: str) -> None:
        """Store another password."""
        sql = "UPDATE account SET password_hash = $2 WHERE id = $1"
        await self._db.execute(sql, account_id, password_hash)

    async def replace_hash(self, account_id: UUID, old: str, new: str) -> None:
        """Store the same password's new hash, unless the password was changed meanwhile."""
        sql = "UPDATE account SET password_hash = $3 WHERE id = $1 AND password_hash = $2"
        await self._db.execute(sql, account_id, old, new)

    async def delete(self, account_id: UUID, now: datetime, purge_at: datetime, by: UUID) -> bool:
        """Delete a living account so that it can come back."""
        sql = """
            UPDATE account SET deleted_at = $2, purge_at = $3, deleted_by = $4
             WHERE id = $1 AND deleted_at IS NULL RETURNING id
        """
        return await self._db.fetchval(sql, account_id, now, purge_at, by) is not None

    async def restore(self, account_id: UUID, now: datetime) -> bool:
        """Bring a deleted account back before its time is over."""
        sql = """
            UPDATE account SET deleted_at = NULL, purge_at = NULL, deleted_by = NULL
             WHERE id = $1 AND purge_at > $2 RETURNING id
        """
        return await self._db.fetchval(sql, account_id, now) is not None

    async def purge_sessions(self, now: datetime, most: int) -> int:
        """Delete sessions of accounts whose time is over; answers how many."""
        sql = """
            DELETE FROM session WHERE id IN (
                SELECT session.id FROM session JOIN account ON account.id = account_id
                 WHERE purge_at <= $1 LIMIT $2 FOR UPDATE OF session SKIP LOCKED
            )
        """
        return _count(await self._db.execute(sql, now, most))

    async def purge(self, now: datetime, most: int) -> int:
        """Delete accounts whose time is over; answers how many."""
        sql = """
            DELETE FROM account WHERE id IN (
                SELECT id FROM account WHERE purge_at <= $1 ORDER BY purge_at LIMIT $2
                FOR UPDATE SKIP LOCKED
            )
        """
        return _count(await self._db.execute(sql, now, most))


def taken() -> Conflict:
    """Without saying which of the two, or whose."""
    return Conflict("The name or the e-mail address belongs to an account already.", code="taken")


def _count(said: str) -> int:
    return int(said.rpartition(" ")[2])


def _columns(person: Person, password_hash: str) -> tuple[Any, ...]:
    return (
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
