"""Datasets: make, list, describe, delete, restore."""

from __future__ import annotations

import msgspec

from services.ingest import rules
from services.ingest.answers import number_cursor, number_of
from services.ingest.deps import Deps
from services.ingest.handlers.keys import KINDS, new_key, sealed
from services.ingest.rules import Known
from shared.bus.routes import Done, Routes, Statement
from shared.contracts.base import Nothing, Principal
from shared.contracts.ingest import (
    ChangeDataset,
    CreateDataset,
    Dataset,
    DatasetCreated,
    DatasetDeleted,
    DatasetKeyRevoked,
    DatasetPage,
    DeleteDataset,
    GetDataset,
    GetLedger,
    Ledger,
    ListDatasets,
    RestoreDataset,
)
from shared.errors import NotFound

routes = Routes("ingest")
ABOVE_ALL = 2**31 - 1


@routes.command(CreateDataset, one_statement=True)
async def create_dataset(cmd: CreateDataset, deps: Deps) -> Statement[DatasetCreated]:
    owner = rules.person(deps.caller)
    variables = rules.planned((), cmd.variables)
    dataset_id = deps.new_id()
    keys = [new_key(kind, deps) for kind in KINDS]
    shown = Dataset(
        id=dataset_id,
        channel_id=0,
        name=cmd.name,
        description=cmd.description,
        public=cmd.public,
        variables=variables,
        entries=0,
        created_at=deps.now,
        last_entry_at=None,
        version=1,
    )
    sealed_keys = sealed({stored.kind: key for key, stored in keys}, deps)

    def reply(number: int) -> DatasetCreated:
        return DatasetCreated(dataset=msgspec.structs.replace(shown, channel_id=number), keys=sealed_keys)

    stored_keys = [stored for _, stored in keys]
    return deps.store.add_dataset(cmd, dataset_id, owner, deps.now, variables, stored_keys, reply)


@routes.query(ListDatasets)
async def list_datasets(query: ListDatasets, deps: Deps) -> Done[DatasetPage]:
    found = await _found(query, rules.person(deps.caller), deps)
    page = found[: query.limit]
    more = number_cursor(page[-1].number) if len(found) > len(page) else None
    return Done(DatasetPage(items=tuple(known.shown() for known in page), next=more))


async def _found(query: ListDatasets, caller: Principal, deps: Deps) -> list[Known]:
    """One more than were asked for, when there is one."""
    store, limit = deps.store, query.limit + 1
    if query.order == "asc":
        after = number_of(query.after) if query.after else 0
        if query.deleted:
            return await store.deleted_after(caller, deps.now - rules.UNDO, after, limit)
        return await store.datasets_after(caller, after, limit)
    before = number_of(query.after) if query.after else ABOVE_ALL
    if query.deleted:
        return await store.deleted_before(caller, deps.now - rules.UNDO, before, limit)
    return await store.datasets_before(caller, before, limit)


@routes.query(GetDataset)
async def get_dataset(query: GetDataset, deps: Deps) -> Done[Dataset]:
    known = rules.for_reader(await deps.store.dataset(query.dataset_id), deps.caller)
    return Done(known.shown())


@routes.query(GetLedger)
async def get_ledger(query: GetLedger, deps: Deps) -> Done[Ledger]:
    known = rules.for_key_holder(await deps.store.dataset(query.dataset_id), deps.caller)
    return Done(known.ledger())


@routes.command(ChangeDataset)
async def change_dataset(cmd: ChangeDataset, deps: Deps) -> Done[Dataset]:
    await deps.store.lock(cmd.dataset_id)
    known = rules.for_owner(await deps.store.dataset(cmd.dataset_id), deps.caller)
    rules.at_version(known, cmd.if_version)
    changed = _changed(known, cmd)
    if changed != known:
        await deps.store.change_dataset(known.number, changed.name, changed.description, changed.public)
        await deps.store.set_variables(known.number, changed.variables)
    return Done(_shown(await deps.store.dataset(cmd.dataset_id)))


def _changed(known: Known, cmd: ChangeDataset) -> Known:
    return msgspec.structs.replace(
        known,
        name=known.name if cmd.name is None else cmd.name,
        description=known.description if cmd.description is None else cmd.description,
        public=known.public if cmd.public is None else cmd.public,
        variables=known.variables if cmd.variables is None else rules.planned(known.variables, cmd.variables),
    )


@routes.command(DeleteDataset)
async def delete_dataset(cmd: DeleteDataset, deps: Deps) -> Done[Nothing]:
    await deps.store.lock(cmd.dataset_id)
    known = rules.for_owner(await deps.store.dataset(cmd.dataset_id), deps.caller)
    await deps.store.delete_dataset(known.number, deps.now)
    digests = await deps.store.key_digests(known.number, KINDS)
    events = (
        DatasetDeleted(dataset_id=known.id),
        DatasetKeyRevoked(dataset_id=known.id, digests=digests),
    )
    return Done(Nothing(), events=events)


@routes.command(RestoreDataset)
async def restore_dataset(cmd: RestoreDataset, deps: Deps) -> Done[Dataset]:
    await deps.store.lock(cmd.dataset_id)
    known = rules.restorable(await deps.store.deleted(cmd.dataset_id), deps.caller, deps.now)
    await deps.store.restore_dataset(known.number)
    return Done(msgspec.structs.replace(known, deleted_at=None).shown())


def _shown(known: Known | None) -> Dataset:
    if known is None:
        raise NotFound("no such dataset")
    return known.shown()
