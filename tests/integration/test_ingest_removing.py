"""What is deleted is gone at once, can come back for a day, and then leaves the disk in pieces."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from shared.contracts.auth import AccountDeleted, AccountRestored
from shared.contracts.base import Principal
from shared.contracts.ingest import (
    Dataset,
    DatasetDeleted,
    DatasetKeyRevoked,
    DeleteDataset,
    DeleteReadings,
    GetDataset,
    GetDatasetKeys,
    ListDatasets,
    PurgeDatasets,
    ResolveKey,
    RestoreDataset,
)
from shared.errors import NotFound
from shared.vault import Vault
from tests.integration.ingest_service import NOW, Ingest, process, readings
from tests.servers import Place

DAY = timedelta(hours=24)
MINUTE = timedelta(minutes=1)


@pytest.fixture
async def ingest(database: Place, vault: Vault) -> AsyncIterator[Ingest]:
    """A process on a database of its own, called by a person with an account."""
    async with process(database.url("ingest"), vault) as service:
        yield service.newcomer()


def deleted(ingest: Ingest) -> AccountDeleted:
    return AccountDeleted(account_id=UUID(ingest.caller.id), project="default", purge_at=ingest.born + DAY)


def restored(ingest: Ingest) -> AccountRestored:
    return AccountRestored(account_id=UUID(ingest.caller.id), project="default")


async def names(ingest: Ingest, **asked: Any) -> list[str]:
    return [one.name for one in (await ingest.ask(ListDatasets(**asked))).items]


async def count(ingest: Ingest, dataset: Dataset, table: str = "reading") -> int:
    sql = f"SELECT count(*) FROM ingest.{table} WHERE dataset = $1"  # noqa: S608
    found: int = await ingest.pool.fetchval(sql, dataset.channel_id)
    return found


async def test_deleted_datasets_are_listed_while_they_can_come_back(ingest: Ingest) -> None:
    kept, *gone = [await ingest.create(name=name) for name in ("kept", "a", "b", "c")]
    for one in gone:
        await ingest.ask(DeleteDataset(dataset_id=one.id))
    await ingest.newcomer().create(name="somebody else's")
    assert await names(ingest) == ["kept"]
    assert await names(ingest, deleted=True) == ["c", "b", "a"]
    assert await names(ingest, deleted=True, order="asc") == ["a", "b", "c"]
    page = await ingest.ask(ListDatasets(deleted=True, limit=2))
    assert [one.name for one in page.items] == ["c", "b"]
    assert await names(ingest, deleted=True, limit=2, after=page.next) == ["a"]
    assert {(one.deleted_at, one.purge_at) for one in page.items} == {(NOW, NOW + DAY)}
    back = await ingest.ask(RestoreDataset(dataset_id=gone[0].id))
    assert (back, back.deleted_at, back.purge_at) == (gone[0], None, None)
    assert await names(ingest.at(NOW + DAY), deleted=True) == []
    assert (await ingest.again(kept)).deleted_at is None


async def test_an_account_takes_its_datasets_along_and_their_keys_end(ingest: Ingest, vault: Vault) -> None:
    mine = [await ingest.create(name=name, public=True) for name in "ab"]
    other = await ingest.newcomer().create(name="other", public=True)
    elsewhere = await ingest.as_(Principal(kind="user", id=ingest.caller.id, project="elsewhere")).create(
        public=True
    )
    keys = [await ingest.ask(GetDatasetKeys(dataset_id=one.id)) for one in mine]
    digests = {
        one.id: tuple(
            vault.digest(vault.unseal(key, "ingest.key"), "ingest.key")
            for key in (pair.read_key, pair.write_key)
        )
        for one, pair in zip(mine, keys, strict=True)
    }
    events = await ingest.events(deleted(ingest))
    assert {event.dataset_id for event in events if isinstance(event, DatasetDeleted)} == set(digests)
    ended = {event.dataset_id: event.digests for event in events if isinstance(event, DatasetKeyRevoked)}
    assert ended == digests
    for one in mine:
        for message in (GetDataset(dataset_id=one.id), ResolveKey(digest=digests[one.id][0])):
            with pytest.raises(NotFound):
                await ingest.ask(message)
        with pytest.raises(NotFound):
            await ingest.write(one, readings(1))
    assert await ingest.as_(Principal()).ask(GetDataset(dataset_id=other.id)) == other
    assert (await ingest.as_(Principal(project="elsewhere")).ask(GetDataset(dataset_id=elsewhere.id))).id


async def test_only_what_went_with_the_account_comes_back_with_it(ingest: Ingest) -> None:
    by_hand, first, second = [await ingest.create(name=name) for name in ("by hand", "first", "second")]
    await ingest.write(first, readings(1, 2))
    await ingest.ask(DeleteDataset(dataset_id=by_hand.id))
    later = ingest.at(NOW + MINUTE).told_at(NOW + MINUTE)
    await later.done(deleted(later))
    assert await names(later) == []
    with pytest.raises(NotFound):  # somebody whose token is still good
        await later.ask(RestoreDataset(dataset_id=first.id))
    undo = ingest.at(NOW + 2 * MINUTE).told_at(NOW + 2 * MINUTE)
    assert await undo.events(restored(undo)) == ()
    assert await names(undo) == ["second", "first"]
    assert await names(undo, deleted=True) == ["by hand"]
    assert (await undo.write(first, readings(3))).entries[0].entry == 3
    assert (await undo.again(second)).deleted_at is None


async def test_words_about_an_account_count_in_the_order_they_were_said(ingest: Ingest) -> None:
    dataset = await ingest.create()
    first, second, third = [ingest.told_at(NOW + n * MINUTE) for n in range(3)]
    await second.done(restored(second))
    assert await first.events(deleted(first)) == ()
    assert await names(ingest) == ["one"]
    await third.done(deleted(third))
    await second.done(restored(second))
    assert await names(ingest) == []
    again = await third.events(deleted(third))
    assert [event.dataset_id for event in again] == [
        dataset.id,
        dataset.id,
    ]  # a process died before it said so


async def test_a_dataset_made_while_its_owner_was_deleted_goes_too(ingest: Ingest) -> None:
    await ingest.done(deleted(ingest))
    late = await ingest.create(name="late")
    events = await ingest.events(PurgeDatasets())
    assert {type(event) for event in events} == {DatasetDeleted, DatasetKeyRevoked}
    with pytest.raises(NotFound):
        await ingest.again(late)
    undo = ingest.told_at(NOW + MINUTE)
    await undo.done(restored(undo))
    assert await names(ingest) == ["late"]


async def test_what_went_with_an_account_is_purged_when_its_day_is_over(ingest: Ingest) -> None:
    dataset, other = await ingest.create(), await ingest.newcomer().create()
    await ingest.write(dataset, readings(1, 2, 3))
    await ingest.as_(Principal(kind="user", id="x", scopes=(f"dataset:{other.id}:write",))).write(
        other, readings(1)
    )
    await ingest.done(deleted(ingest))
    await ingest.at(NOW + DAY + 59 * MINUTE).done(PurgeDatasets())  # its owner may be on the way back
    assert await count(ingest, dataset) == 3
    end = ingest.at(NOW + DAY + 61 * MINUTE)
    await end.done(PurgeDatasets())
    assert [await count(ingest, dataset, table) for table in ("reading", "dataset_key", "variable")] == [
        0,
        0,
        0,
    ]
    assert await count(ingest, other) == 1
    await end.told_at(end.now).done(restored(end))
    assert await names(end) == []


async def test_a_word_that_waited_for_a_day_purges_nothing_at_once(ingest: Ingest) -> None:
    dataset = await ingest.create()
    await ingest.write(dataset, readings(1))
    late = ingest.at(NOW + 3 * DAY)
    await late.done(deleted(ingest))
    await late.done(PurgeDatasets())
    assert await count(ingest, dataset) == 1
    back = late.told_at(NOW + 23 * 60 * MINUTE)
    await back.done(restored(back))
    assert await names(late) == ["one"]


async def test_words_about_accounts_are_forgotten(ingest: Ingest) -> None:
    await ingest.done(deleted(ingest))
    await ingest.at(NOW + timedelta(days=29)).done(PurgeDatasets())
    assert await ingest.pool.fetchval("SELECT count(*) FROM ingest.owner") == 1
    await ingest.at(NOW + timedelta(days=31)).done(PurgeDatasets())
    assert await ingest.pool.fetchval("SELECT count(*) FROM ingest.owner") == 0


async def test_processes_that_purge_at_once_touch_nothing_else(
    ingest: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.ingest.handlers.upkeep.PIECE", 3)
    gone = [await ingest.create(name=f"gone {n}") for n in range(3)]
    cleared, kept = await ingest.create(name="cleared"), await ingest.create(name="kept")
    for one in (*gone, cleared, kept):
        await ingest.write(one, readings(*range(20)))
    for one in gone:
        await ingest.ask(DeleteDataset(dataset_id=one.id))
    await ingest.ask(DeleteReadings(dataset_id=cleared.id))
    await ingest.write(cleared, readings(21))
    later = ingest.at(NOW + DAY + MINUTE)
    while await count(later, cleared) > 1 or [n for one in gone if (n := await count(later, one))]:
        await asyncio.gather(*(later.done(PurgeDatasets()) for _ in range(3)))
    await later.done(PurgeDatasets())
    assert [await count(later, one) for one in (*gone, cleared, kept)] == [0, 0, 0, 1, 20]
    assert await names(later) == ["kept", "cleared"]
