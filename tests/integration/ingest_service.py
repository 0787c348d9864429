"""Ingest without a bus: each message goes to its handler, in the transaction the bus would give it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import asyncpg

from services.ingest.deps import Deps
from services.ingest.handlers import routes
from services.ingest.store import Store
from services.ingest.store.base import Descriptions
from services.ingest.times import Span
from shared.bus.routes import Done, Job
from shared.contracts.base import Event, Message, Principal
from shared.contracts.ingest import (
    CreateDataset,
    Dataset,
    ExportReadings,
    GetDataset,
    ReadingsWritten,
    VariableSpec,
    WriteReadings,
)
from shared.errors import Refusal
from shared.vault import Vault

ANN = Principal(kind="user", id="ann")
BOB = Principal(kind="user", id="bob")
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Ingest:
    """One process of the service; `now` and `caller` are those of every message."""

    pool: Any
    vault: Vault
    caller: Principal = ANN
    now: datetime = NOW
    newest: datetime = datetime(2030, 1, 1, tzinfo=UTC)
    descriptions: Descriptions = field(default_factory=Descriptions)
    born: datetime = NOW

    def newcomer(self) -> Ingest:
        """The same process, called by a person nobody has seen before."""
        return self.as_(Principal(kind="user", id=str(uuid4())))

    def as_(self, caller: Principal) -> Ingest:
        return replace(self, caller=caller)

    def at(self, now: datetime) -> Ingest:
        return replace(self, now=now)

    def told_at(self, born: datetime) -> Ingest:
        """For messages that were made then."""
        return replace(self, born=born)

    def deps(self, db: Any) -> Deps:
        span = Span(datetime(2000, 1, 1, tzinfo=UTC), self.newest)
        return Deps(Store(db, self.descriptions), self.caller, self.now, self.vault, span, self.born)

    async def done(self, message: Message) -> Done[Any]:
        """Run a command (committed) or a query."""
        route = routes.table[message.topic]
        if route.shape == "query" or not route.inbox:
            done: Done[Any] = await route.handler(message, self.deps(self.pool))
        else:
            async with self.pool.acquire() as connection, connection.transaction():
                done = await route.handler(message, self.deps(connection))
        return done

    async def ask(self, message: Message) -> Any:
        return (await self.done(message)).reply

    async def events(self, message: Message) -> tuple[Event, ...]:
        return (await self.done(message)).events

    async def batch(self, writes: Sequence[WriteReadings]) -> list[Done[ReadingsWritten] | Refusal]:
        jobs = [Job(write, uuid4(), self.caller, self.now) for write in writes]
        handler = routes.table[WriteReadings.topic].handler
        async with self.pool.acquire() as connection, connection.transaction():
            outcomes: list[Done[ReadingsWritten] | Refusal] = await handler(jobs, self.deps(connection))
        return outcomes

    async def write(self, dataset: Dataset, body: str, form: Any = "json", **options: Any) -> ReadingsWritten:
        """Write one body; raises its refusal."""
        command = WriteReadings(dataset_id=dataset.id, format=form, body=body.encode(), **options)
        (outcome,) = await self.batch([command])
        if isinstance(outcome, Refusal):
            raise outcome
        return outcome.reply

    async def create(self, *tags: str, **options: Any) -> Dataset:
        variables = tuple(VariableSpec(tag=tag) for tag in tags or ("temp",))
        made = await self.ask(CreateDataset(**{"name": "one", "variables": variables, **options}))
        dataset: Dataset = made.dataset
        return dataset

    async def again(self, dataset: Dataset) -> Dataset:
        found: Dataset = await self.ask(GetDataset(dataset_id=dataset.id))
        return found

    async def export(self, dataset: Dataset, form: Any = "csv", **options: Any) -> list[bytes]:
        handler = routes.table[ExportReadings.topic].handler
        query = ExportReadings(dataset_id=dataset.id, format=form, **options)
        return [part async for part in handler(query, self.deps(self.pool))]


@asynccontextmanager
async def process(url: str, vault: Vault, connections: int = 4) -> AsyncIterator[Ingest]:
    """One process of the service with a pool of its own."""
    async with asyncpg.create_pool(url, min_size=0, max_size=connections) as pool:
        yield Ingest(pool, vault)


def readings(*values: float, minute: int = 0) -> str:
    """A list of readings, a minute apart."""
    items = [
        f'{{"at": "2026-11-20T{(minute + index) // 60 % 24:02}:{(minute + index) % 60:02}:00Z",'
        f' "values": {{"temp": {value}}}}}'
        for index, value in enumerate(values)
    ]
    return "[" + ",".join(items) + "]"


def some_id() -> UUID:
    """The id of nothing."""
    return uuid4()
