"""SQL about invitations."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from services.auth.store.base import Base


@dataclass(frozen=True)
class Invited:
    """An invitation without its secret."""

    id: UUID
    note: str
    roles: tuple[str, ...]
    created_at: datetime
    expires_at: datetime


class Invitations(Base):
    """One method, one statement."""

    async def add_invitation(self, project: str, invited: Invited, secret_hash: bytes, by: UUID) -> None:
        """Keep an invitation."""
        sql = """
            INSERT INTO invitation (id, project, secret_hash, note, roles, made_by, created_at, expires_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
        """
        times = (invited.created_at, invited.expires_at)
        await self._db.execute(sql, invited.id, project, secret_hash, invited.note, invited.roles, by, *times)

    async def invitation(self, project: str, secret_hash: bytes, now: datetime) -> Invited | None:
        """The invitation with that secret if it can be used; held, so that one person uses it."""
        sql = """
            SELECT id, note, roles, created_at, expires_at FROM invitation
             WHERE project = $1 AND secret_hash = $2 AND used_at IS NULL AND expires_at > $3 FOR UPDATE
        """
        row = await self._db.fetchrow(sql, project, secret_hash, now)
        return None if row is None else Invited(row[0], row[1], tuple(row[2]), row[3], row[4])

    async def use_invitation(self, invitation_id: UUID, account_id: UUID, now: datetime) -> None:
        """It has let somebody in and lets in nobody else."""
        sql = "UPDATE invitation SET used_at = $3, account_id = $2 WHERE id = $1"
        await self._db.execute(sql, invitation_id, account_id, now)

    async def invitations(self, project: str, now: datetime, most: int) -> list[Invited]:
        """Those that can be used, the newest first."""
        sql = """
            SELECT id, note, roles, created_at, expires_at FROM invitation
             WHERE project = $1 AND used_at IS NULL AND expires_at > $2 ORDER BY id DESC LIMIT $3
        """
        rows = await self._db.fetch(sql, project, now, most)
        return [Invited(UUID(int=row[0].int), row[1], tuple(row[2]), row[3], row[4]) for row in rows]

    async def delete_invitation(self, project: str, invitation_id: UUID) -> bool:
        """Take one back that was not used."""
        sql = "DELETE FROM invitation WHERE project = $1 AND id = $2 AND used_at IS NULL RETURNING id"
        return await self._db.fetchval(sql, project, invitation_id) is not None

    async def forget_invitations(self, before: datetime) -> None:
        """Delete those that were over before then, used or not."""
        sql = "DELETE FROM invitation WHERE expires_at < $1"
        await self._db.execute(sql, before)
