"""Ingest for tests: its handlers alone, each in the transaction the bus would give it, or behind a bus."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID, uuid4

import asyncpg
from prometheus_client import CollectorRegistry

from services.ingest.deps import Deps, deps_of
from services.ingest.handlers import routes
from services.ingest.settings import Settings
from services.ingest.store import Store
from services.ingest.store.base import Descriptions
from services.ingest.times import Span
from shared.bus import topology
from shared.bus.ids import uuid7
from shared.bus.inbox import PostgresInbox, PostgresUnit
from shared.bus.link import Link
from shared.bus.memory import MemoryBroker
from shared.bus.requester import BusRequester
from shared.bus.requests import Caller
from shared.bus.routes import Done, Job, Statement
from shared.bus.service import Service
from shared.contracts.base import Event, Message, Principal
from shared.contracts.ingest import (
    CreateDataset,
    Dataset,
    DatasetCreated,
    ExportReadings,
    GetDataset,
    ReadingsWritten,
    VariableSpec,
    WriteReadings,
)
from shared.db import Database
from shared.errors import Refusal
from shared.vault import Vault
from tests.servers import SECRET_KEY, Place

ANN = Principal(kind="user", id="ann")
BOB = Principal(kind="user", id="bob")
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
SETTINGS = Settings(amqp_url="", secret_key=SECRET_KEY, oldest_reading=date(2000, 1, 1))


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
                if isinstance(done, Statement):
                    done = Done(done.reply(await PostgresUnit(connection).carry_out(done)))
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


@dataclass
class Front:
    """What the gateway does."""

    requester: BusRequester

    async def ask(self, message: Any, frame: UUID | None = None) -> Any:
        return await self.requester.ask(message, self.caller(frame))

    async def create(self) -> DatasetCreated:
        command = CreateDataset(name="one", variables=(VariableSpec(tag="temp"),))
        made: DatasetCreated = await self.ask(command)
        return made

    def caller(self, frame: UUID | None = None) -> Caller:
        return Caller(id=frame or uuid7(), request_id="r-1", principal=ANN)


@asynccontextmanager
async def front_of(
    database: Place,
    vault: Vault,
    processes: int = 1,
    make_inbox: Callable[[Database], PostgresInbox] = PostgresInbox,
) -> AsyncIterator[Front]:
    """A gateway's side of some processes of ingest on a broker in memory, their inbox in PostgreSQL."""
    broker = MemoryBroker([*topology.service_queues("ingest"), *topology.shared_queues()])
    gateway = broker.link("gateway")
    requester = BusRequester(gateway)
    await gateway.open_replies(requester.on_reply)
    async with AsyncExitStack() as stack:
        for _ in range(processes):
            db = Database(database.url("ingest"), size=4, application_name="test")
            await stack.enter_async_context(served(broker.link("ingest"), db, make_inbox(db), vault))
        yield Front(requester)
    broker.close()


@asynccontextmanager
async def served(link: Link, db: Database, inbox: PostgresInbox, vault: Vault) -> AsyncIterator[None]:
    """A process of ingest behind a bus, until the end of the block."""
    await db.open()
    await inbox.keep_partitions(24)
    known = Descriptions()
    registry = CollectorRegistry()
    service = Service(
        routes, link, inbox, lambda call: deps_of(call, SETTINGS, vault, known), registry=registry
    )
    await service.start()
    try:
        yield
    finally:
        await service.stop(5)
        await db.close()


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
