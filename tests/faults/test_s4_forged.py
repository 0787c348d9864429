"""S4: what is published straight to RabbitMQ in somebody else's name is executed by no service.

The broker's rights are taken away here: every account may write to everything, so that what the services
check by themselves is all there is. They go by the account the broker vouches for (`user_id`).
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any
from uuid import UUID

import msgspec
import pytest
from prometheus_client import CollectorRegistry

import services.auth.handlers
import services.chat.handlers
import services.ingest.deps
import services.ingest.handlers
import services.worker.handlers
from deploy.broker import accounts, queues
from services.auth.deps import deps_of as auth_deps_of
from services.auth.hashing import Hasher
from services.ingest.store.base import Descriptions
from services.worker.store import Store as LogStore
from shared.bus import codec, topology
from shared.bus.codec import JSON, MSGPACK, Frame
from shared.bus.ids import uuid7
from shared.bus.inbox import PostgresInbox
from shared.bus.rabbit import RabbitLink
from shared.bus.service import Service
from shared.bus.topology import EXCHANGE_OF_KIND, LOGS, SERVICES, SHORT, WAIT, Rights, Waits
from shared.bus.verdict import Ending
from shared.contracts.base import ANONYMOUS, ANY_ACCOUNT, Message, Principal, owner_of
from shared.contracts.ingest import CreateDataset, DeleteDataset
from shared.contracts.registry import kind_of
from shared.db import Database
from shared.vault import Vault
from tests.broker import VirtualHost
from tests.faults.bare_amqp import BareAmqp, Closed
from tests.faults.examples import example
from tests.integration.auth_service import QUICK, everything, quick_tools
from tests.integration.ingest_service import SETTINGS
from tests.servers import Place, cloned_database
from tests.suites.worlds import eventually

pytestmark = pytest.mark.timeout(300)

STRANGER = "weather_" + secrets.token_hex(3)
NOBODY = ""  # published without user_id: the broker vouches for nobody
ANN = Principal(kind="user", id="ann", roles=("administrator",))
ROUTES = {
    "auth": services.auth.handlers.routes,
    "chat": services.chat.handlers.routes,
    "ingest": services.ingest.handlers.routes,
    "worker": services.worker.handlers.routes,
}
WAITS = Waits(0.2, 0.5)
EVERYTHING = Rights(configure="^$", write=".*", read="^$")


class Trusting(Service):
    """Believes what a frame says."""

    def _allowed(self, work: Any, place: Any) -> bool:
        return True


@dataclass
class Town:
    """The services on a real broker and database; how each frame ended, as they tell it themselves."""

    host: VirtualHost
    place: Place
    tables: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    endings: dict[UUID, Ending] = field(default_factory=dict)

    async def send(self, account: str, messages: list[tuple[str, str, list[Frame]]]) -> None:
        """Publish as an account, or as one the broker does not vouch for."""
        about = {"user_id": account} if account else {}
        async with BareAmqp(self.host.url(account or STRANGER)) as amqp:
            for exchange, key, frames in messages:
                body = codec.join([codec.encode(frame) for frame in frames])
                answer = await amqp.publish(exchange, key, body, content_type=MSGPACK, **about)
                assert not isinstance(answer, Closed), answer

    async def ended(self, ids: Iterable[UUID]) -> dict[Ending, int]:
        """How many ended how."""
        wanted = list(ids)
        await eventually(lambda: self._have_ended(wanted), seconds=120)
        return dict(Counter(self.endings[each] for each in wanted))

    async def _have_ended(self, ids: list[UUID]) -> bool:
        return all(each in self.endings for each in ids)


@asynccontextmanager
async def a_town(
    template: Place, vault: Vault, urls: tuple[str, str], make: type[Service] = Service
) -> AsyncIterator[Town]:
    """Every service with its tables and its queues, and accounts that may publish everything."""
    rights = {name: replace(one, write=".*", topics={}) for name, one in accounts().items()}
    declared = [
        *(one for one in queues() if not one.name.startswith("wait.")),
        *topology.shared_queues(WAITS),
    ]
    async with AsyncExitStack() as stack:
        place = await stack.enter_async_context(cloned_database(template))
        host = VirtualHost(*urls, declared, {**rights, STRANGER: EVERYTHING})
        await stack.enter_async_context(host)
        town = Town(host, place)
        hasher = stack.enter_context(Hasher(QUICK, workers=1, queue=8))
        tools, known = quick_tools(vault, hasher), Descriptions()
        deps: dict[str, Callable[[Any], Any]] = {
            "auth": lambda call: auth_deps_of(call, tools),
            "chat": lambda call: None,
            "ingest": lambda call: services.ingest.deps.deps_of(call, SETTINGS, vault, known),
            "worker": lambda call: services.worker.handlers.Deps(LogStore(call.db), 30, call.caller),
        }
        for name in SERVICES:
            service = await stack.enter_async_context(serving(town, name, deps[name], make))
            town.tables[name] = service._table
        yield town


@asynccontextmanager
async def serving(
    town: Town, name: str, deps: Callable[[Any], Any], make: type[Service]
) -> AsyncIterator[Service]:
    """One process of a service."""
    db = Database(town.place.url(name), size=4, application_name="test")
    await db.open()
    inbox = PostgresInbox(db)
    await inbox.keep_partitions(24)
    link = RabbitLink(town.host.url(name), name)
    link.start()
    service = make(
        ROUTES[name],
        link,
        inbox,
        deps,
        registry=CollectorRegistry(),
        tell=lambda frame, ending: town.endings.__setitem__(frame.id, ending),
    )
    await eventually(lambda: is_up(link), seconds=60)
    await service.start(*(("worker.logs",) if name == "worker" else ()))
    try:
        yield service
    finally:
        await service.stop(5)
        await link.close()
        await db.close()


async def is_up(link: RabbitLink) -> bool:
    return link.up


# -- what is forged ----------------------------------------------------------------------------------------


def claimed(listener: str, forger: str) -> Iterator[Principal]:
    """Whom a forger says it speaks for."""
    yield ANN
    yield Principal(kind="user", id="ann")
    yield Principal(kind="key", id="k", scopes=("dataset:00000000-0000-0000-0000-000000000000:write",))
    yield Principal(kind="service", id=listener)
    yield Principal(kind="service", id="gateway")
    yield ANONYMOUS
    if forger:
        yield Principal(kind="service", id=forger)


def frame_of(message: Message, principal: Principal) -> Frame:
    return Frame(
        id=uuid7(),
        topic=message.topic,
        kind="log" if message.topic == "worker.store_log_lines" else kind_of(type(message)),
        body=codec.body_of(message),
        principal=principal,
    )


def forged(listener: str, kind: type[Message], forger: str) -> list[Frame]:
    """One message in every name that this forger has no right to."""
    return [
        frame_of(example(kind), principal)
        for principal in claimed(listener, forger)
        if not (ANY_ACCOUNT in kind.senders and principal == Principal(kind="service", id=forger))
    ]


def forgers_of(listener: str, kind: type[Message]) -> list[str]:
    """Every account that may not send it.

    Its owner may, and the gateway in anybody's name; who listens gives to itself what it wants to try again.
    """
    rightful = {listener, owner_of(kind.topic), *kind.senders}
    return [name for name in (*SERVICES, "gateway", STRANGER, NOBODY) if name not in rightful]


def all_forged(town: Town) -> dict[str, list[tuple[str, str, list[Frame]]]]:
    """By forger: every topic each service listens to, at its exchange, by the wait and among log lines."""
    found: dict[str, list[tuple[str, str, list[Frame]]]] = {}
    for listener, table in town.tables.items():
        for topic, route in table.items():
            for forger in forgers_of(listener, route.message):
                frames = forged(listener, route.message, forger)
                exchange = EXCHANGE_OF_KIND[frames[0].kind]
                ways = [(WAIT, f"{listener}.{SHORT}")]
                ways += [(LOGS, f"{forger or STRANGER}.error")] if listener == "worker" else []
                ways += [(exchange, topic)] if exchange != LOGS else []
                sent = [(*way, forged(listener, route.message, forger)) for way in ways]
                found.setdefault(forger, []).extend(sent)
    return found


@pytest.fixture(scope="module")
async def town(
    database_template: Place, vault: Vault, amqp_url: str, management_url: str
) -> AsyncIterator[Town]:
    async with a_town(database_template, vault, (amqp_url, management_url)) as town:
        yield town
        await town.host.management.remove(STRANGER)


async def anns_dataset(town: Town) -> UUID:
    """Made as the gateway makes it."""
    name = secrets.token_hex(4)
    frame = frame_of(CreateDataset(name=name), ANN)
    await town.send("gateway", [(EXCHANGE_OF_KIND["command"], frame.topic, [frame])])
    assert await town.ended([frame.id]) == {Ending.DONE: 1}
    rows: list[str] = msgspec.json.decode(await everything(town.place))
    return UUID(next(msgspec.json.decode(row)["id"] for row in rows if f'"name":"{name}"' in row))


async def test_nothing_in_a_name_that_is_not_the_sender_s_is_executed(town: Town) -> None:
    await anns_dataset(town)
    before = await everything(town.place)
    sent = all_forged(town)
    await asyncio.gather(*(town.send(forger, messages) for forger, messages in sent.items()))
    frames = [frame for _, _, frames in chain(*sent.values()) for frame in frames]
    assert await town.ended(frame.id for frame in frames) == {Ending.NOT_ALLOWED: len(frames)}
    assert await everything(town.place) == before
    topics = {frame.topic for frame in frames}
    print(f"\nS4: {len(sent)} forgers, {len(topics)} topics, {len(frames):,} forged, executed 0")


async def test_json_from_elsewhere_is_executed_as_little(town: Town) -> None:
    """Its principal is the account, and no service is asked by another."""
    before = await everything(town.place)
    kinds = [route.message for table in town.tables.values() for route in table.values()]
    sent = {uuid7(): kind for kind in kinds if ANY_ACCOUNT not in kind.senders}
    async with BareAmqp(town.host.url(STRANGER)) as amqp:
        for frame_id, kind in sent.items():
            about = {"content_type": JSON, "message_type": kind_of(kind), "message_id": str(frame_id)}
            body = msgspec.json.encode(example(kind))
            exchange = EXCHANGE_OF_KIND[kind_of(kind)]
            answer = await amqp.publish(exchange, kind.topic, body, user_id=STRANGER, **about)
            assert not isinstance(answer, Closed), answer
    assert await town.ended(sent) == {Ending.NOT_ALLOWED: len(sent)}
    assert await everything(town.place) == before


async def test_from_the_gateway_the_same_is_executed(town: Town) -> None:
    """So that a service that obeys nobody would be seen."""
    dataset = await anns_dataset(town)
    frames = [
        frame_of(example(route.message), ANN)
        for table in town.tables.values()
        for route in table.values()
        if "gateway" in route.message.senders
    ]
    frames.append(frame_of(DeleteDataset(dataset_id=dataset), ANN))
    await town.send("gateway", [(EXCHANGE_OF_KIND[each.kind], each.topic, [each]) for each in frames])
    ended = await town.ended(frame.id for frame in frames)
    assert Ending.NOT_ALLOWED not in ended
    assert town.endings[frames[-1].id] is Ending.DONE


async def test_a_service_that_believes_a_frame_is_found(
    database_template: Place, vault: Vault, amqp_url: str, management_url: str
) -> None:
    async with a_town(database_template, vault, (amqp_url, management_url), Trusting) as town:
        frame = frame_of(DeleteDataset(dataset_id=await anns_dataset(town)), ANN)
        before = await everything(town.place)
        await town.send(STRANGER, [(EXCHANGE_OF_KIND["command"], frame.topic, [frame])])
        assert await town.ended([frame.id]) == {Ending.DONE: 1}
        assert await everything(town.place) != before
