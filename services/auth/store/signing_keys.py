"""SQL about the keys that sign access tokens."""

from __future__ import annotations

from datetime import datetime

from services.auth.store.base import Base
from services.auth.tokens import LockedKey
from shared.contracts.auth import SigningKey


class SigningKeys(Base):
    """One method, one statement."""

    async def signing_key(self, now: datetime) -> LockedKey | None:
        """The key that signs now; None before the first was made."""
        sql = """
            SELECT kid, public_key, locked_private_key FROM signing_key
             WHERE signs_from <= $1 AND (retired_at IS NULL OR retired_at > $1)
             ORDER BY signs_from DESC LIMIT 1
        """
        row = await self._db.fetchrow(sql, now)
        return LockedKey(*row) if row else None

    async def add_signing_key(self, key: LockedKey, now: datetime, signs_from: datetime) -> None:
        """Offer the next key; does nothing when another is there, even from the same moment."""
        sql = """
            INSERT INTO signing_key (kid, public_key, locked_private_key, created_at, signs_from)
            VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING
        """
        await self._db.execute(sql, key.kid, key.public_key, key.locked_private_key, now, signs_from)

    async def retire_signing_key(self, made_before: datetime, at: datetime) -> bool:
        """Let the newest key sign until `at`, if it was made before then; False when there is no such key."""
        sql = """
            UPDATE signing_key SET retired_at = $2 WHERE retired_at IS NULL AND created_at < $1 RETURNING kid
        """
        return await self._db.fetchval(sql, made_before, at) is not None

    async def forget_signing_keys(self, before: datetime) -> None:
        """Delete keys nothing can be verified with any more."""
        sql = "DELETE FROM signing_key WHERE retired_at < $1"
        await self._db.execute(sql, before)

    async def public_keys(self, since: datetime) -> tuple[SigningKey, ...]:
        """Keys that sign now, will sign, or were retired after `since`."""
        sql = """
            SELECT kid, public_key FROM signing_key
             WHERE retired_at IS NULL OR retired_at > $1 ORDER BY created_at, kid
        """
        return tuple(SigningKey(kid=row[0], public_key=row[1]) for row in await self._db.fetch(sql, since))
