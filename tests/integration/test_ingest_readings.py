"""Readings on PostgreSQL: written, numbered, found, corrected, deleted."""

from __future__ import annotations

import asyncio
import json
import math
import random
import struct
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest
from msgspec import structs

from services.ingest.handlers.reading import AFTER_ALL, BEFORE_ALL
from services.ingest.store import Store
from shared.bus.routes import Done
from shared.contracts.base import ANONYMOUS, Principal
from shared.contracts.ingest import (
    ChangeDataset,
    CorrectReading,
    Dataset,
    DeleteReading,
    DeleteReadings,
    GetImport,
    GetLatestReading,
    GetLedger,
    GetReading,
    Ledger,
    ListReadings,
    MakePartitions,
    PurgeDatasets,
    Reading,
    ReadingsStored,
    VariableSpec,
    WriteReadings,
)
from shared.db import away
from shared.errors import Forbidden, Invalid, NotFound, Refusal
from shared.vault import Vault
from tests.integration.ingest_service import NOW, Ingest, process, readings
from tests.servers import Place, cloned_database

SEATTLE = {"time_column": "date", "time_format": "%Y/%m/%d %H:%M", "timezone": "UTC"}


@pytest.fixture(scope="module")
async def place(database_template: Place) -> AsyncIterator[Place]:
    async with cloned_database(database_template) as found:
        yield found


@pytest.fixture(scope="module")
async def shared_process(place: Place, vault: Vault) -> AsyncIterator[Ingest]:
    async with process(place.url("ingest"), vault) as service:
        yield service


@pytest.fixture
def ingest(shared_process: Ingest) -> Ingest:
    return shared_process.newcomer()


def holder(dataset: Dataset, right: str) -> Principal:
    return Principal(kind="key", id="k", scopes=(f"dataset:{dataset.id}:{right}",))


async def ledger(ingest: Ingest, dataset: Dataset) -> Ledger:
    found: Ledger = await ingest.ask(GetLedger(dataset_id=dataset.id))
    return found


async def listed(ingest: Ingest, dataset: Dataset, **options: Any) -> list[Reading]:
    """Every page of a list."""
    found: list[Reading] = []
    after = None
    while True:
        page = await ingest.ask(ListReadings(dataset_id=dataset.id, after=after, **options))
        found += page.items
        after = page.next
        if after is None:
            return found


async def test_readings_are_answered_as_they_were_sent(ingest: Ingest) -> None:
    dataset = await ingest.create("temp", "note", "count", "gap")
    body = (
        '{"id": "r-1", "at": "2026-01-31T12:00:00.000001+01:00", "status": "fine",'
        ' "latitude": 52.5, "elevation": 3, "values": {"temp": 22.0, "note": "22.50",'
        ' "count": 9223372036854775807, "gap": null}}'
    )
    written = await ingest.write(dataset, body)
    at = datetime(2026, 1, 31, 11, 0, 0, 1, tzinfo=UTC)
    assert (written.entries[0].entry, written.entries[0].at) == (1, at)
    reading = await ingest.ask(GetReading(dataset_id=dataset.id, entry=1))
    assert reading == await ingest.ask(GetLatestReading(dataset_id=dataset.id))
    assert msgspec.json.encode(reading) == (
        b'{"entry":1,"at":"2026-01-31T11:00:00.000001Z",'
        b'"values":{"temp":22.0,"note":"22.50","count":9223372036854775807,"gap":null},'
        b'"status":"fine","latitude":52.5,"elevation":3.0}'
    )
    again = await ingest.again(dataset)
    assert (again.entries, again.last_entry_at, again.version) == (1, at, 1)


async def test_values_of_every_kind_survive_the_database_and_both_files(ingest: Ingest) -> None:
    chance = random.Random(64)
    tags = [f"v{field}" for field in range(1, 65)]

    def value() -> float | int | str:
        double = struct.unpack("d", chance.randbytes(8))[0]
        text = "".join(map(chr, chance.choices((*range(1, 0x3000), 0x1F600, 0xFFFF), k=chance.randint(0, 9))))
        number = double if math.isfinite(double) else -0.0
        whole = chance.randint(-(2**63), 2**63 - 1) >> chance.randint(0, 63)
        return chance.choice([number, round(number % 100, 2), whole, text, str(number), str(whole), "", ","])

    sent = [{tag: value() for tag in chance.sample(tags, 40)} for _ in range(200)]
    body = json.dumps([{"at": NOW.isoformat(), "values": values} for values in sent])
    dataset = await ingest.create(*tags)
    await ingest.write(dataset, body)
    found = await listed(ingest, dataset, order="asc", limit=150)
    assert [repr(dict(sorted(one.values.items()))) for one in found] == [
        repr(dict(sorted(values.items()))) for values in sent
    ]
    for form in ("csv", "ndjson"):
        text = b"".join(await ingest.export(dataset, form)).decode()
        copy = await ingest.create(*tags)
        await ingest.write(copy, text, form)
        assert b"".join(await ingest.export(copy, form)).decode() == text
        assert repr(await listed(ingest, copy, order="asc")) == repr(found)


async def test_the_number_beside_a_text_can_be_asked_in_sql(ingest: Ingest) -> None:
    dataset = await ingest.create("note")
    await ingest.write(dataset, '{"values": {"note": "22.50"}}')
    sql = "SELECT numbers[1] FROM ingest.reading WHERE dataset = $1"
    assert await ingest.pool.fetchval(sql, dataset.channel_id) == 22.5


async def test_keys_write_and_read_as_far_as_they_go(ingest: Ingest) -> None:
    dataset = await ingest.create()
    writer, reader = ingest.as_(holder(dataset, "write")), ingest.as_(holder(dataset, "read"))
    await writer.write(dataset, readings(1))
    for one in (writer, reader):
        assert (await one.ask(GetLatestReading(dataset_id=dataset.id))).values == {"temp": 1}
    with pytest.raises(Forbidden):
        await reader.write(dataset, readings(2))
    with pytest.raises(Forbidden):
        await writer.ask(DeleteReadings(dataset_id=dataset.id))
    with pytest.raises(NotFound):
        await ingest.as_(ANONYMOUS).ask(GetLatestReading(dataset_id=dataset.id))


async def test_one_batch_of_many_writes_has_one_outcome_each(ingest: Ingest) -> None:
    one, two = await ingest.create(), await ingest.create()
    strange = structs.replace(await ingest.newcomer().create(), name="not mine")

    def write(dataset: Dataset, body: str) -> WriteReadings:
        return WriteReadings(dataset_id=dataset.id, format="json", body=body.encode())

    outcomes = await ingest.batch(
        [write(one, readings(1, 2)), write(strange, readings(1)), write(two, "{"), write(one, readings(3))]
    )
    first, stranger, malformed, last = outcomes
    assert isinstance(first, Done)
    assert [entry.entry for entry in first.reply.entries] == [1, 2]
    assert first.events == ()
    assert isinstance(stranger, NotFound)
    assert isinstance(malformed, Refusal)
    assert malformed.status == 400
    assert isinstance(last, Done)
    assert last.reply.entries[0].entry == 3
    news = ReadingsStored(
        dataset_id=one.id, first=1, last=3, last_at=datetime(2026, 11, 20, 0, 1, tzinfo=UTC)
    )
    assert last.events == (news,)
    assert (await ledger(ingest, two)).rejected == {"malformed": 1}


async def test_the_ledger_accounts_for_every_reading(ingest: Ingest) -> None:
    dataset = await ingest.create()
    await ingest.write(dataset, '[{"id": "a", "values": {"temp": 1}}, {"values": {"temp": true}}]')
    await ingest.write(dataset, '[{"id": "a", "values": {"temp": 1}}, {"id": "b", "values": {"temp": 1}}]')
    with pytest.raises(Invalid) as refusal:
        await ingest.write(dataset, '[{"values": {"temp": true}}, {"values": {"wind": 1}}]')
    assert [(error.path, error.code) for error in refusal.value.errors] == [
        ("0", "wrong_type"),
        ("1", "unknown_variable"),
    ]
    with pytest.raises(Invalid):
        await ingest.write(dataset, '[{"values": {"temp": 1}}, {"values": {}}]', strict=True)
    found = await ledger(ingest, dataset)
    assert (found.stored, found.duplicates, found.expired, found.in_flight, found.last_entry) == (
        2,
        1,
        0,
        0,
        2,
    )
    assert found.rejected == {"wrong_type": 2, "unknown_variable": 1, "empty": 1, "strict": 1}


async def test_a_repeated_own_id_answers_the_entry_it_has(ingest: Ingest) -> None:
    dataset = await ingest.create()
    first = await ingest.write(dataset, '{"id": "a", "at": "2026-01-01T00:00:00Z", "values": {"temp": 1}}')
    again = await ingest.write(dataset, '{"id": "a", "at": "2026-02-02T00:00:00Z", "values": {"temp": 2}}')
    assert again.entries == (structs.replace(first.entries[0], duplicate=True),)
    other = await ingest.create()
    assert not (await ingest.write(other, '{"id": "a", "values": {"temp": 1}}')).entries[0].duplicate


async def test_an_import_goes_on_where_it_stopped(ingest: Ingest) -> None:
    dataset = await ingest.create()
    assert (await ingest.ask(GetImport(dataset_id=dataset.id, source="f"))).position == 0
    await ingest.write(dataset, readings(1, 2), source="f", position=3)
    skipped = await ingest.write(dataset, readings(1, 2), source="f", position=3)
    assert (skipped.entries, skipped.skipped) == ((), 2)
    await ingest.write(dataset, readings(3), source="f", position=4)
    assert (await ingest.ask(GetImport(dataset_id=dataset.id, source="f"))).position == 4
    assert (await ledger(ingest, dataset)).duplicates == 2
    assert (await ingest.again(dataset)).entries == 3
    with pytest.raises(NotFound):
        await ingest.newcomer().ask(GetImport(dataset_id=dataset.id, source="f"))


async def test_pages_are_in_order_of_time_then_entry(ingest: Ingest) -> None:
    dataset = await ingest.create()
    await ingest.write(dataset, readings(5, 6, 7, minute=30))
    await ingest.write(dataset, readings(1, 2, 3))
    await ingest.write(dataset, readings(4, 8))
    ascending = [1, 4, 2, 8, 3, 5, 6, 7]
    assert [one.values["temp"] for one in await listed(ingest, dataset, limit=3, order="asc")] == ascending
    assert [one.values["temp"] for one in await listed(ingest, dataset, limit=3)] == ascending[::-1]
    at = datetime(2026, 11, 20, tzinfo=UTC)
    span = {"start": at + timedelta(minutes=1), "end": at + timedelta(minutes=31)}
    assert [one.values["temp"] for one in await listed(ingest, dataset, order="asc", **span)] == [2, 8, 3, 5]
    assert (await ingest.ask(GetLatestReading(dataset_id=dataset.id))).values == {"temp": 7}
    empty = await ingest.create()
    assert await listed(ingest, empty) == []
    with pytest.raises(NotFound):
        await ingest.ask(GetLatestReading(dataset_id=empty.id))
    with pytest.raises(Invalid):
        await listed(ingest, dataset, variables=("wind",))


async def test_a_correction_replaces_what_it_gives_and_keeps_the_rest(ingest: Ingest) -> None:
    dataset = await ingest.create("temp", "wind", "note")
    await ingest.write(dataset, '{"values": {"temp": 1, "wind": 2, "note": "a"}, "status": "s"}')
    before = await ingest.ask(GetReading(dataset_id=dataset.id, entry=1))
    correct = CorrectReading(dataset_id=dataset.id, entry=1, values=b'{"wind": "7.0", "note": null}')
    corrected = await ingest.ask(correct)
    assert corrected == structs.replace(before, values={"temp": 1, "wind": "7.0", "note": None})
    assert corrected == await ingest.ask(GetReading(dataset_id=dataset.id, entry=1))
    for values, code in ((b'{"temp": true, "x": 1}', "invalid"), (b"[]", "malformed"), (b"{}", "invalid")):
        with pytest.raises(Refusal) as refusal:
            await ingest.ask(structs.replace(correct, values=values))
        assert refusal.value.code == code
    with pytest.raises(NotFound):
        await ingest.ask(structs.replace(correct, entry=2))


async def test_entry_numbers_go_on_after_deleting_and_clearing(ingest: Ingest) -> None:
    dataset = await ingest.create()
    await ingest.write(dataset, readings(1, 2, 3, 4, 5), source="f", position=5)
    assert (await ingest.ask(DeleteReading(dataset_id=dataset.id, entry=5))).deleted == 1
    with pytest.raises(NotFound):
        await ingest.ask(DeleteReading(dataset_id=dataset.id, entry=5))
    at = datetime(2026, 11, 20, tzinfo=UTC)
    gone = await ingest.ask(DeleteReadings(dataset_id=dataset.id, start=at + timedelta(minutes=2)))
    assert gone.deleted == 2
    again = await ingest.again(dataset)
    assert (again.entries, again.last_entry_at) == (2, at + timedelta(minutes=1))
    assert (await ingest.ask(DeleteReadings(dataset_id=dataset.id))).deleted == 2
    again = await ingest.again(dataset)
    assert (again.entries, again.last_entry_at) == (0, None)
    assert await listed(ingest, dataset) == []
    for entry in range(1, 6):
        with pytest.raises(NotFound):
            await ingest.ask(GetReading(dataset_id=dataset.id, entry=entry))
    assert (await ingest.write(dataset, readings(6), source="f", position=5)).entries[0].entry == 6
    assert [one.entry for one in await listed(ingest, dataset)] == [6]
    found = await ledger(ingest, dataset)
    assert (found.stored, found.last_entry) == (6, 6)


async def test_a_range_is_deleted_in_pieces_even_where_many_are_of_one_time(
    ingest: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.ingest.handlers.removing.PIECE", 2)
    dataset = await ingest.create()
    for _ in range(5):
        await ingest.write(dataset, readings(1, 2, 3))
    at = datetime(2026, 11, 20, tzinfo=UTC)
    gone = await ingest.ask(DeleteReadings(dataset_id=dataset.id, end=at + timedelta(minutes=2)))
    assert gone.deleted == 10
    assert [one.values["temp"] for one in await listed(ingest, dataset)] == [3] * 5
    again = await ingest.again(dataset)
    assert (again.entries, again.last_entry_at) == (5, at + timedelta(minutes=2))


async def test_writers_do_not_wait_for_a_range_that_is_being_deleted(ingest: Ingest) -> None:
    dataset = await ingest.create()
    await ingest.write(dataset, readings(1, 2, 3))
    at = datetime(2026, 11, 20, tzinfo=UTC)
    async with ingest.pool.acquire() as connection, connection.transaction():
        sql = "DELETE FROM ingest.reading WHERE dataset = $1 AND at > $2"
        await connection.execute(sql, dataset.channel_id, at)
        assert (await ingest.write(dataset, readings(4))).entries[0].entry == 4


async def test_many_readings_that_are_alike_are_stored_as_one_by_one(ingest: Ingest) -> None:
    dataset = await ingest.create("far", "temp", "count")
    far = VariableSpec(tag="top", field=64)
    variables = (*(VariableSpec(tag=tag) for tag in ("far", "temp", "count")), far)
    await ingest.ask(ChangeDataset(dataset_id=dataset.id, variables=variables))
    at = datetime(2026, 2, 28, 23, 59, 59, 999_999, tzinfo=UTC)
    sent = [
        {
            "at": (at + timedelta(days=number)).isoformat(),
            "values": {"top": number, "temp": [-0.0, 5, 1e-300, 22.5][number % 4], "count": 2**53 - number},
        }
        for number in range(60)
    ]
    bodies = [json.dumps(sent), *(json.dumps(one) for one in sent)]
    for body in bodies:
        await ingest.write(dataset, body)
    assert [entry.entry for entry in (await ingest.write(dataset, bodies[0])).entries] == list(
        range(121, 181)
    )
    found = sorted(await listed(ingest, dataset, limit=100), key=lambda reading: reading.entry)
    for index, reading in enumerate(found):
        one = sent[index % 60]
        assert repr(sorted(reading.values.items())) == repr(sorted(one["values"].items()))  # type: ignore[attr-defined]
        assert reading.at == datetime.fromisoformat(one["at"])  # type: ignore[arg-type]
    assert len(found) == 180


async def test_a_process_sees_what_another_one_changed(place: Place, vault: Vault) -> None:
    async with process(place.url("ingest"), vault) as one, process(place.url("ingest"), vault) as other:
        dataset = await one.create("temp")
        await one.write(dataset, '{"values": {"temp": 1}}')
        change = ChangeDataset(dataset_id=dataset.id, variables=(VariableSpec(tag="wind"),))
        await other.ask(change)
        assert (await one.write(dataset, '{"values": {"wind": 1}}')).entries[0].entry == 2
        with pytest.raises(Invalid) as refused:
            await one.write(dataset, '{"values": {"temp": 1}}')
        assert refused.value.errors[0].code == "retired_variable"


async def test_who_waited_for_a_writer_goes_on_from_its_last_entry(ingest: Ingest) -> None:
    dataset = await ingest.create()
    async with ingest.pool.acquire() as holds, holds.transaction():
        store = Store(holds)
        (known,) = (await store.locked(await store.lock_counters([dataset.id]))).values()
        waiting = asyncio.create_task(ingest.write(dataset, '{"values": {"temp": 1}}'))
        for _ in range(20):
            await ingest.pool.fetchval("SELECT 1")  # meanwhile it has come to the lock
        sql = "UPDATE ingest.dataset_counter SET last_entry = 7 WHERE dataset = $1"
        await holds.execute(sql, known.number)
    assert (await waiting).entries[0].entry == 8


async def test_a_dataset_locked_for_long_is_an_outage_not_a_mistake(ingest: Ingest) -> None:
    dataset = await ingest.create()
    async with ingest.pool.acquire() as holds, holds.transaction():
        await Store(holds).lock_counters([dataset.id])
        async with ingest.pool.acquire() as waits, waits.transaction():
            await waits.execute("SET LOCAL lock_timeout = '10ms'")
            with pytest.raises(asyncpg.PostgresError) as waited:
                await Store(waits).lock_counters([dataset.id])
            assert away(waited.value)


async def test_an_own_id_is_forgotten_with_its_reading(ingest: Ingest) -> None:
    dataset = await ingest.create()
    body = '{"id": "a", "at": "2026-01-01T00:00:00Z", "values": {"temp": 1}}'
    for entry, gone in enumerate(
        (
            DeleteReading(dataset_id=dataset.id, entry=1),
            DeleteReadings(dataset_id=dataset.id, start=datetime(2025, 1, 1, tzinfo=UTC)),
            DeleteReadings(dataset_id=dataset.id),
        ),
        1,
    ):
        written = await ingest.write(dataset, body)
        assert (written.entries[0].entry, written.entries[0].duplicate) == (entry, False)
        assert (await ingest.write(dataset, body)).entries[0].duplicate
        await ingest.ask(gone)
    assert (await ingest.write(dataset, body)).entries[0].entry == 4
    assert (await ingest.write(dataset, body)).entries[0].duplicate


async def test_what_was_cleared_leaves_the_disk_and_what_came_after_stays(
    database: Place, vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.ingest.handlers.upkeep.PIECE", 2)
    monkeypatch.setattr("services.ingest.handlers.upkeep.MOST_PIECES", 1)
    async with process(database.url("ingest"), vault) as ingest:
        dataset = await ingest.create()
        await ingest.write(dataset, readings(1, 2, 3, 4, 5))
        await ingest.ask(DeleteReadings(dataset_id=dataset.id))
        await ingest.write(dataset, readings(6))
        counts = []
        for _ in range(4):
            await ingest.ask(PurgeDatasets())
            sql = "SELECT count(*) FROM ingest.reading WHERE dataset = $1"
            counts.append(await ingest.pool.fetchval(sql, dataset.channel_id))
        assert counts == [4, 2, 1, 1]
        assert [one.entry for one in await listed(ingest, dataset)] == [6]


async def test_a_missing_partition_refuses_nothing_and_gets_its_rows_later(
    database: Place, vault: Vault
) -> None:
    async with process(database.url("ingest"), vault) as ingest:
        dataset = await ingest.create()
        body = '[{"at": "2029-06-15T00:00:00Z", "values": {"temp": 1}}, {"values": {"temp": 2}}]'
        await ingest.write(dataset, body)
        before = await listed(ingest, dataset)
        assert await parts(ingest) == {"reading_2026_11": 1, "reading_other": 1}
        assert await ingest.pool.fetchval("SELECT ingest.make_partitions(34)") >= 30
        assert await parts(ingest) == {"reading_2026_11": 1, "reading_2029_06": 1}
        assert await listed(ingest, dataset) == before
        await ingest.ask(MakePartitions())
        assert await ingest.pool.fetchval("SELECT ingest.make_partitions(34)") == 0


async def parts(ingest: Ingest) -> dict[str, int]:
    """How many rows are in which partition."""
    sql = "SELECT tableoid::regclass::text AS name, count(*) FROM ingest.reading GROUP BY 1"
    return {row["name"].removeprefix("ingest."): row["count"] for row in await ingest.pool.fetch(sql)}


async def test_partitions_are_there_for_the_past_and_some_months_ahead(ingest: Ingest, place: Place) -> None:
    sql = "SELECT name, starts, ends FROM ingest.reading_partition ORDER BY starts"
    found = await ingest.pool.fetch(sql)
    assert found[0]["starts"] == datetime(2000, 1, 1, tzinfo=UTC)
    assert all(one["ends"] == two["starts"] for one, two in pairwise(found))
    now = await ingest.pool.fetchval("SELECT now()")
    assert found[-1]["ends"] > now + timedelta(days=90)
    admin = await asyncpg.connect(place.admin_url)
    try:
        sql = (
            "SELECT relname FROM pg_class c JOIN pg_inherits i ON i.inhrelid = c.oid"
            " WHERE i.inhparent = $1::regclass"
        )
        tables = {row["relname"] for row in await admin.fetch(sql, "ingest.reading")}
    finally:
        await admin.close()
    assert tables == {one["name"] for one in found} | {"reading_other"}


async def test_a_busy_default_partition_is_left_for_the_next_timer(database: Place, vault: Vault) -> None:
    async with process(database.url("ingest"), vault) as ingest, ingest.pool.acquire() as busy:
        async with busy.transaction():
            await busy.fetch("SELECT 1 FROM ingest.reading_other")
            assert await ingest.pool.fetchval("SELECT ingest.make_partitions(34)") == -1
        assert await ingest.pool.fetchval("SELECT ingest.make_partitions(34)") >= 30


async def test_three_processes_number_fifty_datasets_without_holes_or_deadlocks(
    place: Place, vault: Vault, ingest: Ingest
) -> None:
    datasets = [await ingest.create(name=f"n{index}") for index in range(50)]
    chance = random.Random(50)
    answered: dict[Any, list[int]] = defaultdict(list)

    async def batches(one: Ingest) -> None:
        for _ in range(15):
            some = chance.choices(datasets, k=40)
            bodies = [(dataset, readings(*range(chance.randint(1, 3)))) for dataset in some]
            outcomes = await one.batch(
                [
                    WriteReadings(dataset_id=dataset.id, format="json", body=body.encode())
                    for dataset, body in bodies
                ]
            )
            for (dataset, _), outcome in zip(bodies, outcomes, strict=True):
                assert isinstance(outcome, Done)
                answered[dataset.id] += [entry.entry for entry in outcome.reply.entries]

    async with AsyncExitStack() as stack:
        services = [await stack.enter_async_context(process(place.url("ingest"), vault, 3)) for _ in range(3)]
        async with asyncio.TaskGroup() as group:
            for service in services:
                for _ in range(2):
                    group.create_task(batches(service.as_(ingest.caller)))
    sql = "SELECT array_agg(entry ORDER BY entry) FROM ingest.reading WHERE dataset = $1"
    for dataset in datasets:
        stored = await ingest.pool.fetchval(sql, dataset.channel_id) or []
        assert stored == sorted(answered[dataset.id]) == list(range(1, len(stored) + 1))
        found = await ledger(ingest, dataset)
        assert (found.stored, found.last_entry) == (len(stored), len(stored))
        assert (await ingest.again(dataset)).entries == len(stored)


async def test_one_own_id_from_three_processes_is_stored_once(
    place: Place, vault: Vault, ingest: Ingest
) -> None:
    dataset = await ingest.create()
    body = '{"id": "a", "values": {"temp": 1}}'
    async with AsyncExitStack() as stack:
        services = [await stack.enter_async_context(process(place.url("ingest"), vault)) for _ in range(3)]
        written = await asyncio.gather(
            *(service.as_(ingest.caller).write(dataset, body) for service in services for _ in range(3))
        )
    assert {one.entries[0].entry for one in written} == {1}
    assert sum(not one.entries[0].duplicate for one in written) == 1
    assert (await ledger(ingest, dataset)).duplicates == 8


async def test_a_failed_batch_leaves_no_hole(ingest: Ingest) -> None:
    dataset = await ingest.create()
    await ingest.write(dataset, readings(1))
    async with ingest.pool.acquire() as connection:
        rolled_back = connection.transaction()
        await rolled_back.start()
        sql = "UPDATE ingest.dataset_counter SET last_entry = last_entry + 7 WHERE dataset = $1"
        await connection.execute(sql, dataset.channel_id)
        waiting = asyncio.create_task(ingest.write(dataset, readings(2)))
        await rolled_back.rollback()
    assert (await waiting).entries[0].entry == 2


@pytest.fixture(scope="module")
def seattle(seattle_file: Path) -> str:
    return seattle_file.read_bytes().decode()


async def test_the_temperatures_of_seattle_survive_the_database(ingest: Ingest, seattle: str) -> None:
    dataset = await ingest.create()
    written = await ingest.write(dataset, seattle, "csv", **SEATTLE)
    assert len(written.entries) == 8_759
    assert b"".join(await ingest.export(dataset, **SEATTLE)).decode() == seattle
    assert await parts_of(ingest, dataset) == {"reading_2010"}


async def test_an_import_in_batches_exports_the_same_file(ingest: Ingest, seattle: str) -> None:
    dataset = await ingest.create()
    header, *lines = seattle.split("\n")
    for start in range(0, len(lines), 1_000):
        body = "\n".join([header, *lines[start : start + 1_000]])
        await ingest.write(dataset, body, "csv", source="seattle", position=start + 1_000, **SEATTLE)
    assert b"".join(await ingest.export(dataset, **SEATTLE)).decode() == seattle


async def parts_of(ingest: Ingest, dataset: Dataset) -> set[str]:
    sql = "SELECT DISTINCT tableoid::regclass::text AS name FROM ingest.reading WHERE dataset = $1"
    rows = await ingest.pool.fetch(sql, dataset.channel_id)
    return {row["name"].removeprefix("ingest.") for row in rows}


async def test_an_export_of_100_000_readings_comes_in_small_parts(ingest: Ingest) -> None:
    dataset = await ingest.create("temp", "note")
    start = datetime(2025, 1, 1, tzinfo=UTC)
    for batch in range(10):
        lines = [
            f"{(start + timedelta(minutes=batch * 10_000 + index)).isoformat()},{index / 8},n{index}"
            for index in range(10_000)
        ]
        await ingest.write(dataset, "at,temp,note\n" + "\n".join(lines), "csv")
    parts = await ingest.export(dataset)
    assert max(len(part) for part in parts) <= 256 << 10
    text = b"".join(parts).decode()
    assert text.count("\n") == 100_000
    copy = await ingest.create("temp", "note")
    lines = text.split("\n")
    for first in range(1, len(lines), 20_000):
        await ingest.write(copy, "\n".join([lines[0], *lines[first : first + 20_000]]), "csv")
    assert b"".join(await ingest.export(copy)).decode() == text
    ndjson = await ingest.export(dataset, "ndjson", end=start + timedelta(minutes=2))
    assert b"".join(ndjson) == (
        b'{"entry":1,"at":"2025-01-01T00:00:00.000000Z","values":{"temp":0.0,"note":"n0"}}\n'
        b'{"entry":2,"at":"2025-01-01T00:01:00.000000Z","values":{"temp":0.125,"note":"n1"}}\n'
    )


async def test_an_empty_export_has_its_header(ingest: Ingest) -> None:
    dataset = await ingest.create("temp", "wind")
    assert b"".join(await ingest.export(dataset)) == b"at,temp,wind"
    assert await ingest.export(dataset, "ndjson") == []
    with pytest.raises(NotFound):
        await ingest.newcomer().export(dataset)


async def test_status_and_place_come_with_an_export_once_there_were_any(ingest: Ingest) -> None:
    dataset = await ingest.create()
    await ingest.write(dataset, '{"at": "2026-01-01T00:00:00Z", "values": {}, "elevation": 7, "status": ""}')
    text = b"".join(await ingest.export(dataset))
    assert text == b'at,temp,status,elevation\n2026-01-01T00:00:00.000000Z,,"",7.0'


async def test_a_query_reads_what_it_answers_and_no_more(ingest: Ingest) -> None:
    dataset = await ingest.create()
    start = datetime(2025, 11, 20, tzinfo=UTC)
    lines = [f"{(start + timedelta(hours=hour)).isoformat()},{hour}" for hour in range(3_000)]
    await ingest.write(dataset, "at,temp\n" + "\n".join(lines), "csv")
    known = await Store(ingest.pool).dataset(dataset.id)
    assert known is not None
    bounds = (known.first_at, known.last_at)
    for _ in range(8):  # a plan for any range, should PostgreSQL think of one, is thought of at the sixth
        for find, cursor in (("newest_first", AFTER_ALL), ("oldest_first", BEFORE_ALL)):
            read = await what_is_read(ingest, find, known, *bounds, cursor, 100)
            assert set(read) == {"reading_2025", "reading_2026_01", "reading_2026_02", "reading_2026_03"}
            assert sum(read.values()) <= 100 + len(read)
    at = datetime(2026, 1, 1, tzinfo=UTC)
    read = await what_is_read(ingest, "newest_first", known, at, at + timedelta(seconds=1), AFTER_ALL, 100)
    assert read == {"reading_2026_01": 1}


async def what_is_read(ingest: Ingest, find: str, *arguments: Any) -> dict[str, int]:
    """The rows that a method of the store reads, by partition that it looks into."""
    sql = """
        SELECT relname, idx_scan + seq_scan AS scans, idx_tup_fetch + seq_tup_read AS rows
        FROM pg_stat_xact_user_tables
        WHERE relid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'ingest.reading'::regclass)
    """
    async with ingest.pool.acquire() as connection, connection.transaction():
        before = {row["relname"]: row for row in await connection.fetch(sql)}
        await getattr(Store(connection), find)(*arguments)
        after = {row["relname"]: row for row in await connection.fetch(sql)}
    return {
        name: row["rows"] - before[name]["rows"]
        for name, row in after.items()
        if row["scans"] > before[name]["scans"]
    }
