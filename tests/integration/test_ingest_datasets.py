"""Datasets on PostgreSQL: descriptions, keys, deletion and its undoing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import asyncpg
import pytest
import structlog
from msgspec import structs

from shared.contracts.base import ANONYMOUS, Principal
from shared.contracts.ingest import (
    ChangeDataset,
    CreateDataset,
    DatasetDeleted,
    DatasetKeyRevoked,
    DeleteDataset,
    GetDataset,
    GetDatasetKeys,
    GetLatestReading,
    GetLedger,
    ListDatasets,
    PurgeDatasets,
    ResolveKey,
    RestoreDataset,
    RotateDatasetKey,
    VariableSpec,
)
from shared.errors import Forbidden, Invalid, NotFound, Refusal, Unauthorized
from shared.vault import Vault
from tests.integration.ingest_service import BOB, NOW, Ingest, process, readings, some_id
from tests.servers import Place, cloned_database


@pytest.fixture(scope="module")
async def shared_process(database_template: Place, vault: Vault) -> AsyncIterator[Ingest]:
    async with cloned_database(database_template) as place, process(place.url("ingest"), vault) as service:
        yield service


@pytest.fixture
def ingest(shared_process: Ingest) -> Ingest:
    return shared_process.newcomer()


@pytest.fixture
async def alone(database: Place, vault: Vault) -> AsyncIterator[Ingest]:
    """A process on a database of its own."""
    async with process(database.url("ingest"), vault) as service:
        yield service


def digest(vault: Vault, sealed: bytes) -> bytes:
    return vault.digest(vault.unseal(sealed, "ingest.key"), "ingest.key")


async def test_a_new_dataset_has_variables_keys_and_no_entries(ingest: Ingest, vault: Vault) -> None:
    variables = (VariableSpec(tag="temp", unit="°C"), VariableSpec(tag="wind", field=1))
    made = await ingest.ask(CreateDataset(name="Garden", description="d", variables=variables))
    assert [(one.tag, one.field, one.unit) for one in made.dataset.variables] == [
        ("wind", 1, ""),
        ("temp", 2, "°C"),
    ]
    assert (made.dataset.entries, made.dataset.last_entry_at, made.dataset.version) == (0, None, 1)
    assert await ingest.ask(GetDataset(dataset_id=made.dataset.id)) == made.dataset
    for sealed, kind in ((made.keys.read_key, "read"), (made.keys.write_key, "write")):
        key = vault.unseal(sealed, "ingest.key")
        assert len(key) == 16
        assert set(key) <= set("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ")
        holder = await ingest.ask(ResolveKey(digest=digest(vault, sealed)))
        assert (holder.dataset_id, holder.kind, holder.project) == (made.dataset.id, kind, "default")


async def test_a_dataset_may_have_no_variables(ingest: Ingest) -> None:
    made = await ingest.ask(CreateDataset(name="Empty"))
    assert made.dataset.variables == ()


async def test_only_a_person_makes_datasets(ingest: Ingest) -> None:
    with pytest.raises(Unauthorized):
        await ingest.as_(ANONYMOUS).create()
    with pytest.raises(Forbidden):
        await ingest.as_(Principal(kind="key", id="k")).create()


async def test_a_list_has_the_caller_s_datasets_page_by_page(ingest: Ingest) -> None:
    mine = [await ingest.create(name=f"n{index}") for index in range(5)]
    await ingest.as_(BOB).create()
    for order, expected in (("desc", mine[::-1]), ("asc", mine)):
        found, after = [], None
        while True:
            page = await ingest.ask(ListDatasets(limit=2, after=after, order=order))  # type: ignore[arg-type]
            found += page.items
            after = page.next
            if after is None:
                break
        assert found == expected
    with pytest.raises(Invalid):
        await ingest.ask(ListDatasets(after="nonsense"))


async def test_a_change_makes_a_version_and_an_older_one_is_refused(ingest: Ingest) -> None:
    dataset = await ingest.create("temp", "wind")
    change = ChangeDataset(
        dataset_id=dataset.id, name="Two", variables=(VariableSpec(tag="wind"),), if_version=1
    )
    changed = await ingest.ask(change)
    assert (changed.name, changed.version) == ("Two", 2)
    assert [(one.tag, one.field, one.retired) for one in changed.variables] == [
        ("temp", 1, True),
        ("wind", 2, False),
    ]
    with pytest.raises(Refusal) as refusal:
        await ingest.ask(change)
    assert refusal.value.status == 412
    same = await ingest.ask(ChangeDataset(dataset_id=dataset.id, name="Two"))
    assert same.version == 2
    back = await ingest.ask(
        ChangeDataset(dataset_id=dataset.id, variables=(VariableSpec(tag="temp"), VariableSpec(tag="wind")))
    )
    assert [(one.tag, one.field, one.retired) for one in back.variables] == [
        ("temp", 1, False),
        ("wind", 2, False),
    ]


async def test_a_retired_variable_keeps_its_values_and_takes_none(ingest: Ingest) -> None:
    dataset = await ingest.create("temp", "wind")
    await ingest.write(dataset, '{"values": {"temp": 1, "wind": 2}}')
    await ingest.ask(ChangeDataset(dataset_id=dataset.id, variables=(VariableSpec(tag="wind"),)))
    assert (await ingest.ask(GetLatestReading(dataset_id=dataset.id))).values == {"wind": 2}
    asked = GetLatestReading(dataset_id=dataset.id, variables=("temp",))
    assert (await ingest.ask(asked)).values == {"temp": 1}
    with pytest.raises(Invalid) as refusal:
        await ingest.write(dataset, '{"values": {"temp": 1}}')
    assert refusal.value.errors[0].code == "retired_variable"


async def test_a_stranger_sees_nothing_that_is_not_public(ingest: Ingest) -> None:
    private, public = await ingest.create(), await ingest.create(public=True)
    elsewhere = structs.replace(ingest.caller, project="other")
    for stranger in (BOB, ANONYMOUS, elsewhere):
        for message in (
            GetDataset(dataset_id=private.id),
            GetDatasetKeys(dataset_id=private.id),
            DeleteDataset(dataset_id=private.id),
            ChangeDataset(dataset_id=private.id, name="x"),
            RotateDatasetKey(dataset_id=private.id, kind="read"),
            GetLedger(dataset_id=private.id),
            RestoreDataset(dataset_id=private.id),
        ):
            with pytest.raises(NotFound):
                await ingest.as_(stranger).ask(message)
    assert await ingest.as_(ANONYMOUS).ask(GetDataset(dataset_id=public.id)) == public
    with pytest.raises(Forbidden):
        await ingest.as_(BOB).ask(GetDatasetKeys(dataset_id=public.id))
    with pytest.raises(Forbidden):
        await ingest.as_(BOB).ask(DeleteDataset(dataset_id=public.id))
    with pytest.raises(NotFound):
        await ingest.as_(Principal(project="other")).ask(GetDataset(dataset_id=public.id))


async def test_a_renewed_key_ends_the_old_one_at_once(ingest: Ingest, vault: Vault) -> None:
    dataset = await ingest.create()
    before = await ingest.ask(GetDatasetKeys(dataset_id=dataset.id))
    done = await ingest.done(RotateDatasetKey(dataset_id=dataset.id, kind="write"))
    after = await ingest.ask(GetDatasetKeys(dataset_id=dataset.id))
    assert done.reply == after
    assert (after.read_key == before.read_key, after.write_key == before.write_key) == (True, False)
    old = digest(vault, before.write_key)
    assert done.events == (DatasetKeyRevoked(dataset_id=dataset.id, digests=(old,)),)
    with pytest.raises(NotFound):
        await ingest.ask(ResolveKey(digest=old))
    assert (await ingest.ask(ResolveKey(digest=digest(vault, after.write_key)))).kind == "write"


async def test_each_reveal_of_the_keys_is_logged_without_them(ingest: Ingest, vault: Vault) -> None:
    dataset = await ingest.create()
    with structlog.testing.capture_logs() as lines:
        keys = await ingest.ask(GetDatasetKeys(dataset_id=dataset.id))
    (line,) = lines
    assert (line["event"], line["log_level"]) == ("key_revealed", "warning")
    assert (line["dataset_id"], line["caller"]) == (str(dataset.id), ingest.caller.id)
    assert vault.unseal(keys.write_key, "ingest.key") not in repr(lines)


async def test_a_deleted_dataset_is_gone_at_once_and_back_within_24_hours(
    ingest: Ingest, vault: Vault
) -> None:
    dataset = await ingest.create(public=True)
    await ingest.write(dataset, readings(1, 2))
    keys = await ingest.ask(GetDatasetKeys(dataset_id=dataset.id))
    digests = tuple(digest(vault, key) for key in (keys.read_key, keys.write_key))
    events = await ingest.events(DeleteDataset(dataset_id=dataset.id))
    assert events == (
        DatasetDeleted(dataset_id=dataset.id),
        DatasetKeyRevoked(dataset_id=dataset.id, digests=digests),
    )
    for message in (GetDataset(dataset_id=dataset.id), ResolveKey(digest=digests[0])):
        with pytest.raises(NotFound):
            await ingest.ask(message)
    with pytest.raises(NotFound):
        await ingest.write(dataset, readings(3))
    assert (await ingest.ask(ListDatasets())).items == ()
    with pytest.raises(NotFound):
        await ingest.at(NOW + timedelta(hours=24)).ask(RestoreDataset(dataset_id=dataset.id))
    restored = await ingest.at(NOW + timedelta(hours=23)).ask(RestoreDataset(dataset_id=dataset.id))
    assert restored == await ingest.again(dataset)
    assert restored.entries == 2
    assert (await ingest.ask(ResolveKey(digest=digests[1]))).dataset_id == dataset.id
    assert (await ingest.write(dataset, readings(3))).entries[0].entry == 3


async def test_a_deleted_dataset_is_purged_after_24_hours_in_pieces(
    alone: Ingest, database: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.ingest.handlers.upkeep.PIECE", 4)
    monkeypatch.setattr("services.ingest.handlers.upkeep.MOST_PIECES", 1)
    dataset, other = await alone.create(), await alone.create()
    await alone.write(dataset, readings(*range(10)))
    await alone.write(dataset, '{"id": "a", "values": {"temp": 1}}')
    await alone.write(other, readings(1))
    await alone.ask(DeleteDataset(dataset_id=dataset.id))
    later = alone.at(NOW + timedelta(hours=25))
    counts = []
    for service in (alone, later, later, later, later):
        await service.ask(PurgeDatasets())
        counts.append(await rows(database, "reading"))
    assert counts == [12, 8, 4, 1, 1]
    assert [
        await rows(database, table) for table in ("dataset", "dataset_key", "variable", "dataset_counter")
    ] == [
        1,
        2,
        1,
        1,
    ]
    assert await rows(database, "reading_identity") == 0
    assert (await later.again(other)).entries == 1


async def rows(database: Place, table: str) -> int:
    """How many rows a table has."""
    connection = await asyncpg.connect(database.admin_url)
    try:
        found: int = await connection.fetchval(f"SELECT count(*) FROM ingest.{table}")  # noqa: S608
        return found
    finally:
        await connection.close()


async def test_an_unknown_dataset_is_not_found(ingest: Ingest) -> None:
    with pytest.raises(NotFound):
        await ingest.ask(GetDataset(dataset_id=some_id()))


async def test_projects_never_see_each_other(ingest: Ingest) -> None:
    elsewhere = ingest.as_(structs.replace(ingest.caller, project="other"))
    dataset = await elsewhere.create()
    assert (await ingest.ask(ListDatasets())).items == ()
    with pytest.raises(NotFound):
        await ingest.again(dataset)
    with pytest.raises(NotFound):
        await ingest.write(dataset, readings(1))
    assert (await elsewhere.write(dataset, readings(1))).entries[0].entry == 1
