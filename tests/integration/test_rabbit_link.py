"""The link to a real RabbitMQ: what it survives (what accounts may not do: test_s5_broker_accounts.py)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from itertools import chain
from typing import Any
from urllib.parse import urlsplit

import pytest
import uvloop

from shared.bus import topology
from shared.bus.ids import uuid7
from shared.bus.link import Delivery, Outgoing, PublishUnknown, Unroutable
from shared.bus.rabbit import RabbitLink
from shared.bus.requester import BusRequester
from shared.bus.requests import Caller
from shared.bus.topology import COMMANDS, REPLIES
from shared.contracts.about import get_about
from tests.broker import VirtualHost
from tests.line import Line, line_to
from tests.suites.worlds import eventually

QUEUES = [*topology.service_queues("auth"), *topology.service_queues("ingest"), *topology.shared_queues()]
ACCOUNTS = {"gateway": topology.gateway_rights(), "auth": topology.service_rights("auth")}


@pytest.fixture
async def broker(amqp_url: str, management_url: str) -> AsyncIterator[VirtualHost]:
    async with VirtualHost(amqp_url, management_url, QUEUES, ACCOUNTS) as made:
        yield made


async def connected(url: str, account: str) -> RabbitLink:
    link = RabbitLink(url, account)
    link.start()
    await eventually(lambda: is_up(link))
    return link


async def is_up(link: RabbitLink) -> bool:
    return link.up


async def is_down(link: RabbitLink) -> bool:
    return not link.up


async def test_what_goes_nowhere_is_said_at_once(broker: VirtualHost) -> None:
    link = await connected(broker.url("gateway"), "gateway")
    with pytest.raises(Unroutable):
        await link.publish(Outgoing(COMMANDS, "nobody.hears", b"\x90"))
    await link.publish(Outgoing(COMMANDS, "auth.hears", b"\x90"))
    assert await link.depths(("auth", "nobody")) == {"auth": (1, 0), "nobody": None}
    await link.close()


async def test_who_gives_up_while_a_queue_is_opened_harms_no_other(broker: VirtualHost) -> None:
    link = await connected(broker.url("gateway"), "gateway")
    heard: asyncio.Queue[Delivery] = asyncio.Queue()
    lost = asyncio.Event()

    def opened() -> asyncio.Task[Any]:
        to_open = link.open_private(heard.put_nowait, most=4, prefetch=4, on_lost=lost.set)
        return asyncio.create_task(to_open)

    kept = await opened()
    for turns in range(40):  # at any point of what is said meanwhile
        leaving = opened()
        for _ in range(turns):
            await asyncio.sleep(0)
        leaving.cancel()
    await asyncio.wait_for(opened(), 5)
    service = await connected(broker.url("auth"), "auth")
    await service.publish(Outgoing(REPLIES, kept.name, b"\x90"))
    await asyncio.wait_for(heard.get(), 5)
    await eventually(lambda: is_one_of_two(broker))
    assert not lost.is_set()
    await service.close()
    await link.close()


async def is_one_of_two(broker: VirtualHost) -> bool:
    return len([name for name in await broker.queues() if name.startswith("gateway.request.")]) == 2


LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.mark.parametrize("loop", LOOPS)
async def test_messages_of_any_size_arrive_whole_and_in_order_on_either_loop(
    broker: VirtualHost, loop: str
) -> None:
    def run() -> None:
        with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
            runner.run(there_and_back(broker))

    await asyncio.to_thread(run)


async def there_and_back(broker: VirtualHost) -> None:
    sizes = [0, 1, 131_064, 131_065, 600_000, *range(200, 400)]
    bodies = [bytes((number % 251,)) * size for number, size in enumerate(sizes)]
    heard: asyncio.Queue[Delivery] = asyncio.Queue()
    service, gateway = (
        await connected(broker.url("auth"), "auth"),
        await connected(broker.url("gateway"), "gateway"),
    )
    await service.consume("auth", heard.put_nowait, prefetch=10)
    sent = [
        Outgoing(COMMANDS, "auth.hears", body, reply_to="gateway.x", headers={"number": number})
        for number, body in enumerate(bodies)
    ]
    publishing = asyncio.gather(*(gateway.publish(message) for message in sent))
    async with asyncio.timeout(20):
        for number, body in enumerate(bodies):
            delivery = await heard.get()
            assert delivery.body == body
            assert delivery.properties.headers == {"number": number}
            assert (delivery.properties.reply_to, delivery.properties.user_id) == ("gateway.x", "gateway")
            delivery.ack()
        await publishing
    assert gateway.send(Outgoing(COMMANDS, "auth.hears", b"unconfirmed"))
    assert (await asyncio.wait_for(heard.get(), 5)).body == b"unconfirmed"
    await service.close()
    assert await eventually(lambda: waiting_in(gateway, "auth")) == 1
    await gateway.close()


async def waiting_in(link: RabbitLink, queue: str) -> int:
    found = (await link.depths((queue,)))[queue]
    return found[0] if found else 0


async def test_a_connection_that_is_reset_says_so_to_whoever_waits_for_a_confirm(broker: VirtualHost) -> None:
    link = await connected(broker.url("gateway"), "gateway")
    assert link._publisher is not None
    waiting = asyncio.create_task(link.publish(Outgoing(COMMANDS, "auth.hears", b"\x90")))
    await asyncio.sleep(0)
    transport = link._publisher._tap._transport
    assert transport is not None
    transport.abort()
    with pytest.raises(PublishUnknown):
        await waiting
    assert not link.up
    await eventually(lambda: is_up(link))
    await link.publish(Outgoing(COMMANDS, "auth.hears", b"\x90"))
    await link.close()


@pytest.mark.parametrize("loop", LOOPS)
async def test_messages_wait_in_the_link_while_the_broker_does_not_read(
    broker: VirtualHost, loop: str
) -> None:
    def run() -> None:
        with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
            runner.run(frozen_and_thawed(broker.url("gateway")))

    await asyncio.to_thread(run)


@asynccontextmanager
async def line_of(url: str) -> AsyncIterator[tuple[Line, str]]:
    """A line to the broker, and the same address through it."""
    parts = urlsplit(url)
    account = parts.netloc.rpartition("@")[0]
    async with line_to(parts.hostname or "", parts.port or 5672) as line:
        yield line, parts._replace(netloc=f"{account}@127.0.0.1:{line.port}").geturl()


async def frozen_and_thawed(url: str) -> None:
    async with line_of(url) as (line, through):
        link = RabbitLink(through, "gateway", publish_seconds=60)
        link.start()
        await eventually(lambda: is_up(link))
        line.freeze()
        publishing = [
            asyncio.create_task(link.publish(Outgoing(COMMANDS, "auth.hears", bytes(60_000))))
            for _ in range(400)
        ]
        publisher = link._publisher
        assert publisher is not None

        async def holds() -> bool:
            return len(publisher._held) > 0

        await eventually(holds)
        transport = publisher._tap._transport
        assert transport is not None
        assert transport.get_write_buffer_size() < 1_000_000
        line.thaw()
        await asyncio.wait_for(asyncio.gather(*publishing), 20)
        await link.close()


class Unlucky(RabbitLink):
    """Its consuming side ends at first as aiormq ends what waits on a lost connection."""

    def __init__(self, url: str, account: str) -> None:
        super().__init__(url, account)
        self.ends: list[type[BaseException]] = [Exception, asyncio.CancelledError, KeyError]

    async def _consume_side(self, connection: Any) -> None:
        if self.ends:
            raise self.ends.pop()
        await super()._consume_side(connection)


async def test_no_end_of_a_connection_ends_the_link(broker: VirtualHost) -> None:
    link = Unlucky(broker.url("auth"), "auth")
    link.start()
    await eventually(lambda: is_up(link))
    await link.close()


async def test_connections_closed_by_the_broker_come_back_with_consumers(broker: VirtualHost) -> None:
    heard: asyncio.Queue[Delivery] = asyncio.Queue()
    service = await connected(broker.url("auth"), "auth")
    await service.consume("auth", heard.put_nowait, prefetch=10)
    gateway = await connected(broker.url("gateway"), "gateway")
    for number in range(3):
        await eventually(lambda: closed(broker, 4))

        async def published(body: bytes) -> bool:
            try:
                await gateway.publish(Outgoing(COMMANDS, "auth.hears", body))
            except Exception:
                return False
            return True

        body = f"{number}".encode()
        await eventually(lambda body=body: published(body))
        async with asyncio.timeout(10):
            while (delivery := await heard.get()).body != body:
                delivery.ack()
            delivery.ack()
    await service.close()
    await gateway.close()


async def closed(broker: VirtualHost, wanted: int) -> bool:
    if len(await broker.connections()) < wanted:
        return False
    await broker.close_connections()
    return True


async def test_who_comes_back_is_served_before_those_the_broker_only_believes_in(broker: VirtualHost) -> None:
    heard: asyncio.Queue[Delivery] = asyncio.Queue()
    gateway = await connected(broker.url("gateway"), "gateway")
    async with line_of(broker.url("auth")) as (line, through):
        service = await connected(through, "auth")
        await service.consume("auth", heard.put_nowait, prefetch=10)
        for consumers in (2, 3):
            line.half_open()
            await eventually(lambda wanted=consumers: are_consumers(gateway, wanted))
            for number in range(8):
                await gateway.publish(Outgoing(COMMANDS, "auth.hears", f"{consumers}.{number}".encode()))
                delivery = await asyncio.wait_for(heard.get(), 5)
                assert delivery.body == f"{consumers}.{number}".encode()
                delivery.ack()
            assert await are_consumers(gateway, consumers)  # the old ones were there all the time
        await service.close()
    await gateway.close()


async def are_consumers(link: RabbitLink, wanted: int) -> bool:
    return (await link.depths(("auth",)))["auth"] == (0, wanted)


async def test_a_call_is_asked_again_over_a_new_connection_and_once_more_when_services_are_back(
    broker: VirtualHost,
) -> None:
    heard: asyncio.Queue[Delivery] = asyncio.Queue()
    believed_in = await connected(broker.url("auth"), "auth")
    await believed_in.consume("auth.queries", heard.put_nowait, prefetch=10)
    async with line_of(broker.url("gateway")) as (line, through):
        link = RabbitLink(through, "gateway")
        requester = BusRequester(link)
        await link.open_replies(requester.on_reply)
        link.start()
        await eventually(lambda: is_up(link))
        caller = Caller(uuid7(), "here", seconds=20)
        asking = asyncio.create_task(requester.ask(get_about("auth")(), caller))
        addresses = [(await next_of(heard)).properties.reply_to]
        line.half_open()
        addresses += [(await next_of(heard)).properties.reply_to for _ in range(2)]
        assert addresses[0] != addresses[1] == addresses[2]
        asking.cancel()
        await link.close()
    await believed_in.close()


async def next_of(heard: asyncio.Queue[Delivery]) -> Delivery:
    return await asyncio.wait_for(heard.get(), 5)


async def test_who_came_back_shares_with_the_others_when_the_broker_must_have_noticed(
    broker: VirtualHost,
) -> None:
    heard: dict[str, list[bytes]] = {"stayed": [], "came back": []}

    def hear(name: str, delivery: Delivery) -> None:
        heard[name].append(delivery.body)
        delivery.ack()

    gateway = await connected(broker.url("gateway"), "gateway")
    stayed = await connected(broker.url("auth"), "auth")
    await stayed.consume("auth", partial(hear, "stayed"), prefetch=10)
    async with line_of(broker.url("auth")) as (line, through):
        came_back = RabbitLink(through, "auth", forgotten_seconds=1)
        came_back.start()
        subscription = await came_back.consume("auth", partial(hear, "came back"), prefetch=10)
        await eventually(lambda: is_up(came_back))
        line.cut()
        await eventually(lambda: is_down(came_back))
        await eventually(lambda: is_up(came_back))

        async def shared() -> bool:
            sent = [f"{number}".encode() for number in range(4)]
            heard.update({"stayed": [], "came back": []})
            for body in sent:
                await gateway.publish(Outgoing(COMMANDS, "auth.hears", body))
            await eventually(lambda: all_heard(heard, sent))
            return len(heard["stayed"]) == len(heard["came back"])

        await eventually(shared)
        await eventually(lambda: are_consumers(gateway, 2))
        await subscription.cancel()
        await eventually(lambda: are_consumers(gateway, 1))
        await came_back.close()
    await stayed.close()
    await gateway.close()


async def all_heard(heard: dict[str, list[bytes]], sent: list[bytes]) -> bool:
    return sorted(chain.from_iterable(heard.values())) == sent


async def test_a_deleted_queue_is_missed_and_taken_from_again_when_it_is_back(broker: VirtualHost) -> None:
    heard: asyncio.Queue[Delivery] = asyncio.Queue()
    service = await connected(broker.url("auth"), "auth")
    await service.consume("auth", heard.put_nowait, prefetch=10)
    await broker.delete_queue("auth")
    await eventually(lambda: missing(service, ["auth"]))
    assert not service.up
    await broker.declare()
    await eventually(lambda: is_up(service))
    gateway = await connected(broker.url("gateway"), "gateway")
    await gateway.publish(Outgoing(COMMANDS, "auth.hears", b"back"))
    assert (await asyncio.wait_for(heard.get(), 5)).body == b"back"
    await service.close()
    await gateway.close()


async def missing(link: RabbitLink, queues: list[str]) -> bool:
    return link.missing == queues


async def test_a_channel_closed_by_a_mistake_is_opened_again(broker: VirtualHost) -> None:
    link = await connected(broker.url("gateway"), "gateway")
    with pytest.raises(PublishUnknown):
        await link.publish(Outgoing("no.such.exchange", "a.b", b""))

    async def published() -> bool:
        try:
            await link.publish(Outgoing(COMMANDS, "auth.hears", b"\x90"))
        except Exception:
            return False
        return True

    await eventually(published)
    await link.close()


async def test_the_reply_queue_has_a_fresh_name_at_every_connect(broker: VirtualHost) -> None:
    link = RabbitLink(broker.url("gateway"), "gateway")
    await link.open_replies(lambda delivery: None)
    ups: list[str] = []
    link.on_up(lambda: ups.append(link.reply_address))
    link.start()
    await eventually(lambda: is_up(link))
    await eventually(lambda: closed(broker, 2))

    async def again() -> bool:
        return len({name for name in ups if name}) >= 2

    await eventually(again)
    await link.close()
