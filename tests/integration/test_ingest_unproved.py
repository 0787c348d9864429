"""Writes of keys that nobody could be asked about at the door: what they open when ingest looks counts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from services.ingest.handlers import routes
from services.ingest.handlers.writing import guess
from shared.bus.routes import Done, Job
from shared.contracts.base import Principal
from shared.contracts.ingest import (
    Dataset,
    DeleteDataset,
    GetDataset,
    GetDatasetKeys,
    KeyKind,
    ReadingsWritten,
    RestoreDataset,
    RotateDatasetKey,
    WriteReadings,
    unproved,
)
from shared.errors import Forbidden, NotFound, Refusal, Unauthorized
from shared.vault import Vault
from tests.integration.ingest_service import NOW, Ingest, process, readings
from tests.servers import Place, cloned_database


@pytest.fixture(scope="module")
async def place(database_template: Place) -> AsyncIterator[Place]:
    async with cloned_database(database_template) as found:
        yield found


@pytest.fixture
async def ingest(place: Place, vault: Vault) -> AsyncIterator[Ingest]:
    async with process(place.url("ingest"), vault) as service:
        yield service.newcomer()


async def device(ingest: Ingest, dataset: Dataset, kind: KeyKind = "write", of: str = "") -> Principal:
    """Whoever holds the key of now, as the gateway lets him in when it can ask nobody."""
    keys = await ingest.ask(GetDatasetKeys(dataset_id=dataset.id))
    key = ingest.vault.unseal(keys.write_key if kind == "write" else keys.read_key, "ingest.key")
    scope = unproved(ingest.vault.digest(key, "ingest.key"))
    return Principal(kind="key", id=of or str(dataset.id), scopes=(scope,))


async def batch(
    ingest: Ingest, dataset: Dataset, *callers: Principal
) -> list[Done[ReadingsWritten] | Refusal]:
    """A reading of each in one transaction."""
    write = WriteReadings(dataset_id=dataset.id, format="json", body=readings(1.0).encode())
    jobs = [Job(write, uuid4(), caller, NOW) for caller in callers]
    async with ingest.pool.acquire() as connection, connection.transaction():
        outcomes: list[Done[ReadingsWritten] | Refusal] = await routes.table[WriteReadings.topic].handler(
            jobs, ingest.deps(connection)
        )
    return outcomes


async def test_a_key_that_opens_the_dataset_writes_beside_those_that_do_not(ingest: Ingest) -> None:
    dataset, other = await ingest.create(), await ingest.create()
    outcomes = await batch(
        ingest,
        dataset,
        await device(ingest, dataset),
        await device(ingest, dataset, "read"),
        await device(ingest, other),
        await device(ingest, other, of=str(dataset.id)),
        ingest.caller,
    )
    stored, reads_only, of_another, named_wrongly, owner = outcomes
    assert isinstance(stored, Done)
    assert isinstance(reads_only, Forbidden)
    assert isinstance(of_another, NotFound)
    assert isinstance(named_wrongly, Unauthorized)
    assert isinstance(owner, Done)
    assert (await ingest.again(dataset)).entries == 2


async def test_a_key_that_was_revoked_meanwhile_stores_nothing(ingest: Ingest) -> None:
    dataset = await ingest.create()
    before = await device(ingest, dataset)
    await ingest.ask(RotateDatasetKey(dataset_id=dataset.id, kind="write"))
    old, new = await batch(ingest, dataset, before, await device(ingest, dataset))
    assert isinstance(old, Unauthorized)
    assert isinstance(new, Done)
    assert (await ingest.again(dataset)).entries == 1


async def test_the_key_of_a_deleted_dataset_stores_nothing_until_it_is_back(ingest: Ingest) -> None:
    dataset = await ingest.create()
    holder = await device(ingest, dataset)
    await ingest.ask(DeleteDataset(dataset_id=dataset.id))
    (gone,) = await batch(ingest, dataset, holder)
    assert isinstance(gone, Unauthorized)
    await ingest.ask(RestoreDataset(dataset_id=dataset.id))
    (back,) = await batch(ingest, dataset, holder)
    assert isinstance(back, Done)


async def test_nothing_is_guessed_about_an_unproved_key(ingest: Ingest) -> None:
    dataset = await ingest.create()
    await ingest.write(dataset, readings(1.0))
    write = WriteReadings(dataset_id=dataset.id, format="json", body=readings(1.0).encode())
    deps = ingest.deps(ingest.pool)
    assert guess([Job(write, uuid4(), ingest.caller, NOW)], deps) is not None
    assert guess([Job(write, uuid4(), await device(ingest, dataset), NOW)], deps) is None


async def test_an_unproved_key_reads_nothing(ingest: Ingest) -> None:
    dataset = await ingest.create()
    with pytest.raises(NotFound):
        await ingest.as_(await device(ingest, dataset)).ask(GetDataset(dataset_id=dataset.id))
