"""The places the suites run in: memory, and RabbitMQ with PostgreSQL, each with both kinds of reply queue."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import aio_pika
import asyncpg

from shared.bus import topology
from shared.bus.codec import MSGPACK
from shared.bus.ids import uuid7
from shared.bus.inbox import Entry, Inbox, PostgresInbox
from shared.bus.link import Delivery, Outgoing, Settled
from shared.bus.memory import MemoryBroker, MemoryInbox, MemoryLink
from shared.bus.rabbit import RabbitLink
from shared.bus.requester import BusRequester
from shared.bus.requests import Caller
from shared.bus.routes import Routes, Statement
from shared.bus.service import Limits, Service
from shared.bus.topology import Waits
from shared.contracts.base import Principal
from shared.db import Database
from tests.broker import VirtualHost
from tests.servers import Place
from tests.suites.probe import Deps, Script, Shouted

WAITS = Waits(0.2, 0.5)
LIMITS = Limits(waits=(WAITS.short, WAITS.long))
ANN = Principal(kind="user", id="ann")
QUEUES = [*topology.service_queues("probe", (Shouted.topic,)), *topology.shared_queues(WAITS)]
ACCOUNTS = {
    "gateway": topology.gateway_rights(),
    "probe": topology.service_rights("probe"),
    "intruder": topology.service_rights("intruder", ("probe.add",)),
}


def caller(*, seconds: float = 5.0, frame: UUID | None = None, principal: Principal = ANN) -> Caller:
    """The header of a call."""
    return Caller(id=frame or uuid7(), request_id="r-1", principal=principal, seconds=seconds)


class World:
    """A broker, an inbox, the service probe and a requester."""

    def __init__(self, links: Any, inbox: Inbox, effects: Any, *, request_queues: bool) -> None:
        self._links = links
        self.inbox = inbox
        self.effects = effects
        self.script = Script()
        self.heard: asyncio.Queue[Delivery] = asyncio.Queue()
        self.published: list[Outgoing] = []
        self.request_queues = request_queues
        self.services: list[tuple[Service, Any]] = []

    async def open(self, routes: Routes) -> None:
        """Start the requester and one process of the service."""
        self.gateway = await self._links.link("gateway", self._watched)
        self.requester = BusRequester(self.gateway, request_queues=self.request_queues)
        await self.gateway.open_replies(self.requester.on_reply)
        await self.gateway.hear(("probe.#",), self.heard.put_nowait, lambda: None)
        await self._links.up(self.gateway)
        await self.serve(routes)

    async def serve(self, routes: Routes) -> Service:
        """One more process of the service."""
        link = await self._links.link("probe", lambda _: None)
        await self._links.up(link)
        effects, script = self.effects, self.script
        service = Service(routes, link, self.inbox, lambda call: Deps(call, script, effects), limits=LIMITS)
        await service.start()
        self.services.append((service, link))
        return service

    async def die(self) -> None:
        """The first process ends as with kill -9: nothing is settled, its connections are gone."""
        service, link = self.services.pop(0)
        for task in set(service._tasks):
            task.cancel()
        await self._links.cut(link)

    async def cut_gateway(self) -> None:
        """The gateway's connections break and come back."""
        await self._links.cut(self.gateway, mend=True)

    async def publish(self, message: Outgoing, account: str, *, user_id: bool = True) -> None:
        """Publish as another account; raises what the link raises."""
        await self._links.publish(message, account, user_id=user_id)

    async def dead(self) -> list[Mapping[str, Any]]:
        """The headers of what lies among the dead letters, when there is something."""
        return await self._links.headers("dead.probe")

    async def waiting(self, queue: str) -> int:
        """How many messages are ready in a queue."""
        return len(await self._links.headers(queue))

    async def fill(self, queue: str) -> None:
        """Make the limit of a queue one message, and fill it."""
        await self._links.fill(queue)

    def _watched(self, message: Outgoing) -> None:
        self.published.append(message)

    async def close(self) -> None:
        """Stop all."""
        for service, _ in self.services:
            await service.stop(1)
        await self._links.close()


async def eventually(check: Any, seconds: float = 10.0) -> Any:
    """Return the first true answer of an async check."""
    async with asyncio.timeout(seconds):
        while not (found := await check()):  # noqa: ASYNC110 (a broker sets no event)
            await asyncio.sleep(0.01)
    return found


class _Effects:
    """A list of texts in a table or in memory."""

    async def add(self, db: Any, text: str) -> int:
        """Add in the transaction of the call."""
        if isinstance(db, list):
            db.append(text)
            return len(db)
        await db.execute("INSERT INTO effect (text) VALUES ($1)", text)
        return 1

    def __init__(self, inbox: Any) -> None:
        self._inbox = inbox

    async def all(self) -> list[str]:
        """The committed effects."""
        if isinstance(self._inbox, MemoryInbox):
            return sorted(self._inbox.effects)
        rows = await self._inbox.pool.fetch("SELECT text FROM effect ORDER BY text")
        return [row[0] for row in rows]


class _WatchedLink(RabbitLink):
    def __init__(self, url: str, account: str, watch: Any) -> None:
        super().__init__(url, account)
        self._watch = watch

    def post(self, message: Outgoing, settled: Settled) -> None:
        self._watch(message)
        super().post(message, settled)


class _WatchedMemoryLink(MemoryLink):
    watch: Any = staticmethod(lambda _: None)

    def post(self, message: Outgoing, settled: Settled) -> None:
        self.watch(message)
        super().post(message, settled)


class MemoryLinks:
    """Links to a broker in memory."""

    def __init__(self) -> None:
        self.broker = MemoryBroker(QUEUES)

    async def link(self, account: str, watch: Any) -> MemoryLink:
        link = _WatchedMemoryLink(self.broker, account)
        link.watch = watch
        return link

    async def up(self, link: MemoryLink) -> None:
        return None

    async def cut(self, link: MemoryLink, *, mend: bool = False) -> None:
        link.cut()
        if mend:
            await link.mend()

    async def publish(self, message: Outgoing, account: str, *, user_id: bool) -> None:
        self.broker.publish(message, account if user_id else "")

    async def headers(self, queue: str) -> list[Mapping[str, Any]]:
        return [message.headers for message in self.broker.messages(queue)]

    async def fill(self, queue: str) -> None:
        self.broker.queues[queue].arguments = {"x-max-length": 0, "x-overflow": "reject-publish"}

    async def close(self) -> None:
        self.broker.close()


class RabbitLinks:
    """Links to RabbitMQ, in a virtual host of their own, under accounts with the rights of production."""

    def __init__(self, host: VirtualHost) -> None:
        self._host = host
        self._open: list[RabbitLink] = []

    async def link(self, account: str, watch: Any) -> RabbitLink:
        link = _WatchedLink(self._host.url(account), account, watch)
        self._open.append(link)
        return link

    async def up(self, link: RabbitLink) -> None:
        link.start()
        await eventually(lambda: _is_up(link))

    async def cut(self, link: RabbitLink, *, mend: bool = False) -> None:
        if not mend:
            await link.close()
            return
        for connection in (link._consuming, link._publishing.connection if link._publishing else None):
            if connection is not None:
                await connection.close()
        await asyncio.sleep(0)
        await eventually(lambda: _is_up(link))

    async def publish(self, message: Outgoing, account: str, *, user_id: bool) -> None:
        if user_id and message.content_type == MSGPACK:
            link = await self.link(account, lambda _: None)
            await self.up(link)
            await link.publish(message)
            return
        connection = await aio_pika.connect(self._host.url(account) if user_id else self._host.admin)
        async with connection:
            channel = await connection.channel()
            exchange = await channel.get_exchange(message.exchange, ensure=False)
            given = aio_pika.Message(
                message.body,
                content_type=message.content_type,
                reply_to=message.reply_to or None,
                type=message.type or None,
                message_id=str(message.headers.get("message_id", "")) or None,
                user_id=account if user_id else None,
            )
            await exchange.publish(given, message.key)

    async def headers(self, queue: str) -> list[Mapping[str, Any]]:
        connection = await aio_pika.connect(self._host.admin)
        async with connection:
            channel = await connection.channel()
            taken = await channel.get_queue(queue, ensure=False)
            found = []
            while (message := await taken.get(fail=False)) is not None:
                found.append(message.headers)
            return found

    async def fill(self, queue: str) -> None:
        await self._host.policy(queue, {"max-length": 0})

    async def close(self) -> None:
        for link in self._open:
            await link.close()


async def _is_up(link: RabbitLink) -> bool:
    return link.up


class SwitchedInbox(PostgresInbox):
    """PostgreSQL that a test can make unreachable."""

    is_away = False

    @asynccontextmanager
    async def unit(self) -> AsyncIterator[Any]:
        self._check()
        async with super().unit() as unit:
            yield unit

    async def with_row(self, statement: Statement[Any], entry: Entry) -> bytes:
        self._check()
        return await super().with_row(statement, entry)

    async def find(self, ids: Sequence[UUID]) -> Mapping[UUID, Entry]:
        self._check()
        return await super().find(ids)

    async def probe(self) -> None:
        self._check()
        await super().probe()

    def _check(self) -> None:
        if self.is_away:
            raise ConnectionError("unreachable")


@asynccontextmanager
async def memory_world(*, request_queues: bool) -> AsyncIterator[World]:
    """Everything in this process."""
    inbox = MemoryInbox()
    world = World(MemoryLinks(), inbox, _Effects(inbox), request_queues=request_queues)
    try:
        yield world
    finally:
        await world.close()


@asynccontextmanager
async def real_world(
    place: Place, amqp_url: str, management_url: str, *, request_queues: bool
) -> AsyncIterator[World]:
    """RabbitMQ and PostgreSQL."""
    admin = await asyncpg.connect(place.admin_url)
    await admin.execute("CREATE TABLE worker.effect (text text)")
    await admin.execute("GRANT ALL ON worker.effect TO posthouse_worker")
    await admin.close()
    database = Database(place.url("worker"), size=10, application_name="suite")
    await database.open()
    inbox = SwitchedInbox(database)
    await inbox.keep_partitions(24)
    async with VirtualHost(amqp_url, management_url, QUEUES, ACCOUNTS) as host:
        world = World(RabbitLinks(host), inbox, _Effects(inbox), request_queues=request_queues)
        try:
            yield world
        finally:
            await world.close()
            await database.close()
