"""The two keys of a dataset: shown to its owner, renewed, found by their digest."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from services.ingest import rules
from services.ingest.deps import Deps
from services.ingest.store.datasets import StoredKey
from shared.bus.routes import Done, Routes
from shared.contracts.base import Principal
from shared.contracts.ingest import (
    DatasetKeyRevoked,
    DatasetKeys,
    GetDatasetKeys,
    KeyHolder,
    KeyKind,
    ResolveKey,
    RotateDatasetKey,
    unproved_digest,
)
from shared.errors import NotFound, Refusal

routes = Routes("ingest")
log = structlog.get_logger()

CONTEXT = "ingest.key"
KINDS: tuple[KeyKind, ...] = ("read", "write")


def new_key(kind: KeyKind, deps: Deps) -> tuple[str, StoredKey]:
    """A new key in the clear, and as the database has it."""
    key = deps.new_key()
    return key, StoredKey(kind, deps.vault.digest(key, CONTEXT), deps.vault.lock(key, CONTEXT))


def sealed(keys: dict[str, str], deps: Deps) -> DatasetKeys:
    """Both keys as they travel, and as they lie in the inbox."""
    return DatasetKeys(
        read_key=deps.vault.seal(keys["read"], CONTEXT), write_key=deps.vault.seal(keys["write"], CONTEXT)
    )


async def _current(number: int, deps: Deps) -> dict[str, str]:
    locked = await deps.store.locked_keys(number)
    return {kind: deps.vault.unlock(secret, CONTEXT) for kind, secret in locked.items()}


@routes.command(GetDatasetKeys)
async def get_dataset_keys(cmd: GetDatasetKeys, deps: Deps) -> Done[DatasetKeys]:
    known = rules.for_owner(await deps.store.dataset(cmd.dataset_id), deps.caller)
    keys = await _current(known.number, deps)
    log.warning("key_revealed", dataset_id=str(known.id), caller=deps.caller.id)
    return Done(sealed(keys, deps))


@routes.command(RotateDatasetKey)
async def rotate_dataset_key(cmd: RotateDatasetKey, deps: Deps) -> Done[DatasetKeys]:
    await deps.store.lock(cmd.dataset_id)
    known = rules.for_owner(await deps.store.dataset(cmd.dataset_id), deps.caller)
    ended = await deps.store.key_digests(known.number, (cmd.kind,))
    _, stored = new_key(cmd.kind, deps)
    await deps.store.set_key(known.number, stored)
    keys = await _current(known.number, deps)
    log.warning("key_rotated", dataset_id=str(known.id), kind=cmd.kind, caller=deps.caller.id)
    return Done(sealed(keys, deps), events=(DatasetKeyRevoked(dataset_id=known.id, digests=ended),))


@routes.query(ResolveKey)
async def resolve_key(query: ResolveKey, deps: Deps) -> Done[KeyHolder]:
    holders = await deps.store.key_holders((query.digest,))
    if not holders:
        raise NotFound("no dataset has this key")
    return Done(holders[query.digest])


async def proved(callers: Sequence[Principal], deps: Deps) -> Sequence[Principal | Refusal]:
    """Whose keys could not be asked about at the door: with what they open now, or refused."""
    digests = [unproved_digest(caller) for caller in callers]
    asked = {digest for digest in digests if digest is not None}
    if not asked:
        return callers
    holders = await deps.store.key_holders(asked)
    pairs = zip(callers, digests, strict=True)
    return [caller if it is None else rules.holder(caller, holders.get(it)) for caller, it in pairs]
