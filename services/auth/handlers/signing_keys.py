"""The keys that sign access tokens: one after the other, each listed before it signs."""

from __future__ import annotations

from datetime import timedelta

import structlog

from services.auth.deps import Deps
from services.auth.tokens import LockedKey
from shared.bus.routes import Done, Routes
from shared.contracts.auth import ListSigningKeys, RotateSigningKey, SigningKeys
from shared.contracts.base import Nothing

log = structlog.get_logger()
routes = Routes("auth")

# Gateways ask once a minute: each has the key long before the first token it signs.
LISTED_BEFORE = timedelta(minutes=10)
# What clocks may differ by.
LEEWAY = timedelta(seconds=60)
FORGOTTEN_AFTER = timedelta(days=2)
MOST_ENDED = 10_000


@routes.query(ListSigningKeys)
async def list_signing_keys(query: ListSigningKeys, deps: Deps) -> Done[SigningKeys]:
    """Retired keys stay listed while a token may live that they have signed.

    The one query that may write: the first key is made when it is first asked for, since the gateway is
    not ready before it has one. Lost or repeated, it is the same key.
    """
    await signing_key(deps)
    since = deps.now - timedelta(seconds=deps.tools.issuer.seconds) - LEEWAY
    ended = await deps.store.ended_since(since, MOST_ENDED)
    return Done(SigningKeys(keys=await deps.store.public_keys(since), ended=tuple(ended)))


@routes.command(RotateSigningKey)
async def rotate_signing_key(command: RotateSigningKey, deps: Deps) -> Done[Nothing]:
    """Of several processes that try at once one holds the old key's row; the others find it retired."""
    switch = deps.now + LISTED_BEFORE
    if await deps.store.retire_signing_key(deps.now - deps.tools.policy.signing_key, switch):
        key = deps.tools.issuer.new_key()
        await deps.store.add_signing_key(key, deps.now, switch)
        log.info("signing_key_made", kid=key.kid, signs_from=switch.isoformat())
    await deps.store.forget_signing_keys(deps.now - FORGOTTEN_AFTER)
    return Done(Nothing())


async def signing_key(deps: Deps) -> LockedKey:
    """Read each time, never remembered: one that was just made is gone if this transaction fails."""
    key = await deps.store.signing_key(deps.now)
    if key is None:
        await deps.store.add_signing_key(deps.tools.issuer.new_key(), deps.now, deps.now)
        key = await deps.store.signing_key(deps.now)
    assert key is not None
    return key
