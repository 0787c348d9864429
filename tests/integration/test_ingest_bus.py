"""Ingest behind the bus, its inbox in PostgreSQL: repeats store nothing twice, and no row tells a key."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import asyncpg
import pytest

from shared.bus.ids import uuid7
from shared.contracts.ingest import (
    Dataset,
    ExportReadings,
    GetDatasetKeys,
    GetLatestReading,
    GetLedger,
    ListReadings,
    RotateDatasetKey,
    WriteReadings,
)
from shared.errors import Refusal
from shared.vault import Vault
from tests.integration.ingest_service import Front, front_of
from tests.servers import Place


@pytest.fixture
async def front(database: Place, vault: Vault) -> AsyncIterator[Front]:
    """A gateway's side of three processes of ingest."""
    async with front_of(database, vault, processes=3) as made:
        yield made


def write(dataset: Dataset, body: str = '{"values": {"temp": 1}}') -> WriteReadings:
    return WriteReadings(dataset_id=dataset.id, format="json", body=body.encode())


async def test_a_thousand_writes_are_numbered_without_holes(front: Front) -> None:
    datasets = [(await front.create()).dataset for _ in range(10)]
    replies = await asyncio.gather(*(front.ask(write(datasets[n % 10])) for n in range(1_000)))
    for index, dataset in enumerate(datasets):
        assert sorted(reply.entries[0].entry for reply in replies[index::10]) == list(range(1, 101))
        ledger = await front.ask(GetLedger(dataset_id=dataset.id))
        assert (ledger.stored, ledger.last_entry) == (100, 100)


async def test_a_repeated_frame_gets_its_answer_and_stores_nothing(front: Front) -> None:
    dataset = (await front.create()).dataset
    keyed = UUID(int=uuid7().int | 0xF << 124)
    first = await front.ask(write(dataset), keyed)
    assert await front.ask(write(dataset), keyed) == first
    assert (await front.ask(GetLedger(dataset_id=dataset.id))).stored == 1


async def test_one_bad_write_spoils_nobody_else_s(front: Front) -> None:
    dataset = (await front.create()).dataset
    bodies = ['{"values": {"temp": 1}}', "{", '{"values": {"temp": true}}', '{"values": {"temp": 4}}']
    results = await asyncio.gather(
        *(front.ask(write(dataset, body)) for body in bodies), return_exceptions=True
    )
    codes = [result.code if isinstance(result, Refusal) else "stored" for result in results]
    assert codes == ["stored", "malformed", "nothing_stored", "stored"]
    ledger = await front.ask(GetLedger(dataset_id=dataset.id))
    assert (ledger.stored, ledger.rejected) == (2, {"malformed": 1, "wrong_type": 1})


async def test_values_cross_the_wire_as_they_are(front: Front) -> None:
    dataset = (await front.create()).dataset
    sent = {"1": 1, "1.0": 1.0, "-0.0": -0.0, "9223372036854775807": 2**63 - 1, '"1.0"': "1.0"}
    for raw, value in sent.items():
        await front.ask(write(dataset, f'{{"values": {{"temp": {raw}}}}}'))
        found = (await front.ask(GetLatestReading(dataset_id=dataset.id))).values["temp"]
        assert repr(found) == repr(value)
    page = await front.ask(ListReadings(dataset_id=dataset.id, limit=2))
    assert [reading.entry for reading in page.items] == [5, 4]


async def test_an_export_is_streamed_to_the_requester(front: Front) -> None:
    dataset = (await front.create()).dataset
    await front.ask(write(dataset, '{"at": "2026-01-01T00:00:00Z", "values": {"temp": 1.5}}'))
    query = ExportReadings(dataset_id=dataset.id, format="csv")
    parts = [part async for part in front.requester.stream(query, front.caller())]
    assert b"".join(parts) == b"at,temp\n2026-01-01T00:00:00.000000Z,1.5"
    nothing = ExportReadings(dataset_id=uuid7(), format="csv")
    with pytest.raises(Refusal) as refusal:
        [part async for part in front.requester.stream(nothing, front.caller())]
    assert refusal.value.status == 404


async def test_no_key_is_in_any_table_inbox_included(front: Front, database: Place, vault: Vault) -> None:
    made = await front.create()
    shown = await front.ask(GetDatasetKeys(dataset_id=made.dataset.id))
    assert shown == made.keys
    renewed = await front.ask(RotateDatasetKey(dataset_id=made.dataset.id, kind="write"))
    keys = [vault.unseal(key, "ingest.key") for key in (shown.read_key, shown.write_key, renewed.write_key)]
    dump = await dump_of(database)
    assert str(made.dataset.id) in dump
    assert shown.read_key.hex() in dump  # the inbox keeps the reply: sealed
    for key in keys:
        assert key not in dump
        assert key.encode().hex() not in dump


async def dump_of(database: Place) -> str:
    """Every row of every table as text."""
    connection = await asyncpg.connect(database.admin_url)
    try:
        tables = await connection.fetch(
            "SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables"
            " WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        )
        dump = ""
        for table in tables:
            rows = await connection.fetch(f"SELECT t::text AS row FROM ONLY {table['name']} t")  # noqa: S608
            dump += "".join(row["row"] + "\n" for row in rows)
        return dump
    finally:
        await connection.close()
