"""What belongs to an account goes and comes back with it."""

from __future__ import annotations

from collections.abc import Iterable

import structlog

from services.ingest import rules
from services.ingest.deps import Deps
from services.ingest.store.owners import Gone
from shared.bus.routes import Done, Routes
from shared.contracts.auth import AccountDeleted, AccountRestored
from shared.contracts.base import Event, Nothing
from shared.contracts.ingest import DatasetDeleted, DatasetKeyRevoked

routes = Routes("ingest")
log = structlog.get_logger()


# Heard twice they change nothing, heard in the wrong order the later word counts; and outside the inbox they
# are never too old to be believed.
@routes.event(AccountDeleted, inbox=False)
async def account_deleted(event: AccountDeleted, deps: Deps) -> Done[Nothing]:
    owner = str(event.account_id)
    if not await deps.store.hear(event.project, owner, deps.born, True, event.purge_at):
        return Done(Nothing())
    taken = await deps.store.take_along(deps.now - rules.UNDO)
    gone = {one.id: one for one in (*taken, *await deps.store.gone_of(event.project, owner))}
    log.info("datasets_gone_with_owner", owner=owner, datasets=len(gone))
    return Done(Nothing(), events=announced(gone.values()))


@routes.event(AccountRestored, inbox=False)
async def account_restored(event: AccountRestored, deps: Deps) -> Done[Nothing]:
    owner = str(event.account_id)
    if await deps.store.hear(event.project, owner, deps.born, False, None):
        deleted_after = deps.now - rules.UNDO - rules.WORD_ON_ITS_WAY
        count = await deps.store.bring_back(event.project, owner, deleted_after)
        log.info("datasets_back_with_owner", owner=owner, datasets=count)
    return Done(Nothing())


def announced(gone: Iterable[Gone]) -> tuple[Event, ...]:
    """Datasets that disappeared, and their keys with them."""
    return tuple(
        event
        for one in gone
        for event in (
            DatasetDeleted(dataset_id=one.id),
            DatasetKeyRevoked(dataset_id=one.id, digests=one.digests),
        )
    )
