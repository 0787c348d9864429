"""The link to a real RabbitMQ: what it survives (what accounts may not do: test_s5_broker_accounts.py)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import uvloop

from shared.bus import topology
from shared.bus.link import Delivery, Outgoing, PublishUnknown, Unroutable
from shared.bus.rabbit import RabbitLink
from shared.bus.topology import COMMANDS, REPLIES
from tests.broker import VirtualHost
from tests.line import line_to
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


async def frozen_and_thawed(url: str) -> None:
    parts = urlsplit(url)
    account = parts.netloc.rpartition("@")[0]
    async with line_to(parts.hostname or "", parts.port or 5672) as line:
        netloc = f"{account}@127.0.0.1:{line.port}"
        link = RabbitLink(parts._replace(netloc=netloc).geturl(), "gateway", publish_seconds=60)
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
