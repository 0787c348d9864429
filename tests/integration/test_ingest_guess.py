"""Writes a process guesses from memory: the same outcome in one statement, or nothing and the usual way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

import pytest
from prometheus_client import CollectorRegistry

from services.ingest.deps import deps_of
from services.ingest.handlers import routes
from services.ingest.settings import Settings
from services.ingest.store.base import WRITES_IN_DOUBT, Descriptions
from shared.bus import topology
from shared.bus.ids import uuid7
from shared.bus.inbox import Entry, PostgresInbox
from shared.bus.memory import MemoryBroker
from shared.bus.requester import BusRequester
from shared.bus.requests import Caller
from shared.bus.routes import Guess
from shared.bus.service import Service
from shared.contracts.base import Principal
from shared.contracts.ingest import (
    ChangeDataset,
    CreateDataset,
    Dataset,
    DeleteDataset,
    DeleteReadings,
    GetDataset,
    GetLedger,
    ReadingsWritten,
    VariableSpec,
    WriteReadings,
)
from shared.db import Database
from shared.errors import Refusal
from shared.vault import Vault
from tests.servers import SECRET_KEY, Place

ANN = Principal(kind="user", id="ann")
SETTINGS = Settings(amqp_url="", secret_key=SECRET_KEY, oldest_reading=date(2000, 1, 1))
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class SeenInbox(PostgresInbox):
    """Notes how each guess ended."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.guesses: list[bool] = []

    async def at_once(self, guess: Guess, entries: Sequence[Entry]) -> bool:
        right = await super().at_once(guess, entries)
        self.guesses.append(right)
        return right


class Process:
    """One process of ingest with a broker of its own, and how its guesses ended."""

    def __init__(self, requester: BusRequester, inbox: SeenInbox) -> None:
        self._requester = requester
        self.guesses = inbox.guesses

    async def ask(self, message: Any, frame: UUID | None = None) -> Any:
        return await self._requester.ask(message, Caller(id=frame or uuid7(), request_id="r", principal=ANN))

    async def write(self, dataset: Dataset, value: Any = 1, frame: UUID | None = None) -> int:
        """The number of the entry."""
        body = f'{{"at": "{NOON.isoformat()}", "values": {{"temp": {value}}}}}'.encode()
        command = WriteReadings(dataset_id=dataset.id, format="json", body=body)
        written: ReadingsWritten = await self.ask(command, frame)
        return written.entries[0].entry

    async def create(self) -> Dataset:
        made = await self.ask(CreateDataset(name="one", variables=(VariableSpec(tag="temp"),)))
        dataset: Dataset = made.dataset
        return dataset


@asynccontextmanager
async def process(database: Place, vault: Vault) -> AsyncIterator[Process]:
    broker = MemoryBroker([*topology.service_queues("ingest"), *topology.shared_queues()])
    gateway = broker.link("gateway")
    requester = BusRequester(gateway)
    await gateway.open_replies(requester.on_reply)
    db = Database(database.url("ingest"), size=4, application_name="test")
    await db.open()
    inbox = SeenInbox(db)
    await inbox.keep_partitions(24)
    known = Descriptions()
    service = Service(
        routes,
        broker.link("ingest"),
        inbox,
        lambda call: deps_of(call, SETTINGS, vault, known),
        registry=CollectorRegistry(),
    )
    await service.start()
    try:
        yield Process(requester, inbox)
    finally:
        await service.stop(5)
        await db.close()
        broker.close()


@pytest.fixture
async def one(database: Place, vault: Vault) -> AsyncIterator[Process]:
    async with process(database, vault) as made:
        yield made


@pytest.fixture
async def two(database: Place, vault: Vault) -> AsyncIterator[tuple[Process, Process]]:
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(process(database, vault))
        yield first, await stack.enter_async_context(process(database, vault))


async def test_the_first_write_is_looked_up_and_the_others_are_guessed(one: Process) -> None:
    dataset = await one.create()
    assert [await one.write(dataset, value) for value in (1, 2.5, 3)] == [1, 2, 3]
    assert one.guesses == [True, True]
    ledger = await one.ask(GetLedger(dataset_id=dataset.id))
    assert (ledger.stored, ledger.last_entry, ledger.duplicates, ledger.rejected) == (3, 3, 0, {})
    shown = await one.ask(GetDataset(dataset_id=dataset.id))
    assert (shown.entries, shown.last_entry_at) == (3, NOON)


async def test_what_is_not_plain_takes_the_usual_way(one: Process) -> None:
    dataset = await one.create()
    await one.write(dataset)
    for value in ('"text"', "22.50"):
        await one.write(dataset, value)
    with pytest.raises(Refusal):
        await one.write(dataset, "true")
    assert one.guesses == [True]  # 22.50 is a plain number
    ledger = await one.ask(GetLedger(dataset_id=dataset.id))
    assert (ledger.stored, ledger.rejected) == (3, {"wrong_type": 1})


async def test_a_guess_that_somebody_else_has_overtaken_changes_nothing(two: tuple[Process, Process]) -> None:
    first, second = two
    dataset = await first.create()
    entries = [await process.write(dataset) for _ in range(3) for process in two]
    assert entries == [1, 2, 3, 4, 5, 6]
    assert first.guesses == second.guesses == [False]
    ledger = await first.ask(GetLedger(dataset_id=dataset.id))
    assert (ledger.stored, ledger.last_entry) == (6, 6)


async def test_after_a_wrong_guess_it_is_tried_again_some_writes_later(two: tuple[Process, Process]) -> None:
    first, second = two
    dataset = await first.create()
    for process in (first, second, first):
        await process.write(dataset)
    assert first.guesses == [False]
    for _ in range(WRITES_IN_DOUBT + 1):
        await first.write(dataset)
    assert first.guesses == [False, True]


async def test_a_dataset_that_was_changed_elsewhere_is_read_again(two: tuple[Process, Process]) -> None:
    first, second = two
    dataset = await first.create()
    await first.write(dataset)
    await second.ask(ChangeDataset(dataset_id=dataset.id, variables=(VariableSpec(tag="other"),)))
    with pytest.raises(Refusal, match="none of the readings"):
        await first.write(dataset)
    assert first.guesses == [False]


async def test_a_dataset_that_was_deleted_elsewhere_takes_nothing(two: tuple[Process, Process]) -> None:
    first, second = two
    dataset = await first.create()
    await first.write(dataset)
    await second.ask(DeleteDataset(dataset_id=dataset.id))
    with pytest.raises(Refusal) as refusal:
        await first.write(dataset)
    assert refusal.value.status == 404


async def test_what_was_cleared_elsewhere_stays_cleared(two: tuple[Process, Process]) -> None:
    first, second = two
    dataset = await first.create()
    for _ in range(3):
        await first.write(dataset)
    await second.ask(DeleteReadings(dataset_id=dataset.id))
    assert await first.write(dataset) == 4
    shown = await first.ask(GetDataset(dataset_id=dataset.id))
    assert (shown.entries, shown.last_entry_at) == (1, NOON)


async def test_a_frame_that_comes_twice_is_stored_once(one: Process) -> None:
    dataset = await one.create()
    await one.write(dataset)
    frame = uuid7()
    assert await one.write(dataset, 2, frame) == 2
    assert await one.write(dataset, 2, frame) == 2
    assert one.guesses == [True, False]
    assert (await one.ask(GetLedger(dataset_id=dataset.id))).stored == 2


async def test_many_at_once_are_numbered_without_holes(two: tuple[Process, Process]) -> None:
    datasets = [await two[0].create() for _ in range(3)]
    writes = [two[n % 2].write(datasets[n % 3]) for n in range(600)]
    entries = await asyncio.gather(*writes)
    for index, dataset in enumerate(datasets):
        assert sorted(entries[index::3]) == list(range(1, 201))
        ledger = await two[0].ask(GetLedger(dataset_id=dataset.id))
        assert (ledger.stored, ledger.last_entry) == (200, 200)
