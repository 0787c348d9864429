"""Writes a process guesses from memory: the same outcome in one statement, or nothing and the usual way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from services.ingest.store.base import WRITES_IN_DOUBT
from shared.bus.ids import uuid7
from shared.bus.inbox import Entry, PostgresInbox
from shared.bus.routes import Guess
from shared.contracts.ingest import (
    ChangeDataset,
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
from tests.integration.ingest_service import Front, front_of
from tests.servers import Place

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class SeenInbox(PostgresInbox):
    """Notes how each guess ended."""

    def __init__(self, database: Database, guesses: list[bool]) -> None:
        super().__init__(database)
        self.guesses = guesses

    async def at_once(self, guess: Guess, entries: Sequence[Entry]) -> bool:
        right = await super().at_once(guess, entries)
        self.guesses.append(right)
        return right


class Process:
    """One process of ingest with a broker of its own, and how its guesses ended."""

    def __init__(self, front: Front, guesses: list[bool]) -> None:
        self.ask = front.ask
        self.guesses = guesses
        self._front = front

    async def create(self) -> Dataset:
        return (await self._front.create()).dataset

    async def write(self, dataset: Dataset, value: Any = 1, frame: UUID | None = None) -> int:
        """The number of the entry."""
        body = f'{{"at": "{NOON.isoformat()}", "values": {{"temp": {value}}}}}'.encode()
        command = WriteReadings(dataset_id=dataset.id, format="json", body=body)
        written: ReadingsWritten = await self.ask(command, frame)
        return written.entries[0].entry


@asynccontextmanager
async def process(database: Place, vault: Vault) -> AsyncIterator[Process]:
    guesses: list[bool] = []
    async with front_of(database, vault, make_inbox=lambda db: SeenInbox(db, guesses)) as front:
        yield Process(front, guesses)


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
