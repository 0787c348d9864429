"""Log messages on a real RabbitMQ: their keys, who may send and follow them, what a slow follower costs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import aio_pika
import pytest
from aiormq.exceptions import AMQPError

from services.gateway.live.tail import MOST_MESSAGES, LogTail, LostLines, Pattern
from shared.bus import topology
from shared.bus.rabbit import RabbitLink
from shared.bus.shipping import Shipper
from shared.bus.topology import LOGS, Queue
from tests.broker import VirtualHost
from tests.suites.worlds import eventually

MINE = Queue("mine", {}, ((LOGS, "ingest.error"),))
QUEUES = [*topology.service_queues("worker", logs=True), *topology.shared_queues(), MINE]
ACCOUNTS = {
    "gateway": topology.gateway_rights(),
    "ingest": topology.service_rights("ingest"),
    "worker": topology.service_rights("worker"),
}


@pytest.fixture
async def broker(amqp_url: str, management_url: str) -> AsyncIterator[VirtualHost]:
    async with VirtualHost(amqp_url, management_url, QUEUES, ACCOUNTS) as made:
        yield made


@pytest.fixture
async def ingest(broker: VirtualHost) -> AsyncIterator[RabbitLink]:
    link = await connected(broker, "ingest")
    yield link
    await link.close()


@pytest.fixture
async def gateway(broker: VirtualHost) -> AsyncIterator[RabbitLink]:
    link = await connected(broker, "gateway")
    yield link
    await link.close()


async def connected(broker: VirtualHost, account: str) -> RabbitLink:
    link = RabbitLink(broker.url(account), account)
    link.start()
    await eventually(lambda: is_up(link))
    return link


async def is_up(link: RabbitLink) -> bool:
    return link.up


def say(link: RabbitLink, service: str, level: str, event: str) -> None:
    shipper = Shipper(link, service)
    shipper.add({"level": level, "event": event})
    shipper.flush()


async def test_a_queue_of_ones_own_gets_the_level_it_is_bound_to(
    broker: VirtualHost, ingest: RabbitLink
) -> None:
    say(ingest, "ingest", "warning", "w")
    say(ingest, "ingest", "error", "e")
    await eventually(lambda: holds(ingest, {"worker.logs": 2, "mine": 1}))


class Asked(RabbitLink):
    """Counts how often somebody wanted to send."""

    asked = 0

    @property
    def can_send(self) -> bool:
        self.asked += 1
        return super().can_send


async def was_asked(link: Asked) -> bool:
    return link.asked >= 2


async def test_what_is_said_while_there_is_no_broker_is_shipped_once_there_is(broker: VirtualHost) -> None:
    link = Asked(broker.url("ingest"), "ingest")
    shipper = Shipper(link, "ingest")
    running = asyncio.create_task(shipper.run())
    shipper.add({"level": "error", "event": "no broker"})
    await eventually(lambda: was_asked(link))
    link.start()
    await eventually(lambda: holds(link, {"mine": 1}))
    assert not shipper.dropped
    running.cancel()
    await link.close()


async def holds(link: RabbitLink, counts: dict[str, int]) -> bool:
    if not link.up:
        return False
    found = await link.depths(tuple(counts))
    return {name: depth and depth[0] for name, depth in found.items()} == counts


async def test_no_service_logs_in_the_name_of_another(broker: VirtualHost, ingest: RabbitLink) -> None:
    say(ingest, "auth", "error", "forged")
    await eventually(lambda: is_up(ingest))  # the broker ends the channel, the link makes it anew
    await eventually(lambda: said(ingest))
    depths = await ingest.depths(("mine", "worker.logs"))
    assert depths["mine"] == depths["worker.logs"]  # what was forged is in neither


async def said(link: RabbitLink) -> bool:
    """Say something until it is heard: what is sent while a channel is made anew is dropped, and may be."""
    if await holds(link, {"mine": 0}):
        say(link, "ingest", "error", "honest")
        return False
    return True


async def test_the_gateway_follows_and_a_service_may_not(gateway: RabbitLink, ingest: RabbitLink) -> None:
    async with LogTail(gateway).follow(Pattern(level="error")) as following:
        say(ingest, "ingest", "warning", "calm")
        say(ingest, "ingest", "error", "grave")
        say(gateway, "gateway", "critical", "worse")
        async with asyncio.timeout(10):
            events = [line.event for _ in range(2) for line in await following.next()]
        assert sorted(events) == ["grave", "worse"]
    connection = await aio_pika.connect(ingest._url)
    async with connection:
        channel = await connection.channel()
        with pytest.raises(AMQPError):
            await channel.declare_queue("gateway.logs.mine", exclusive=True)


async def test_a_follower_who_does_not_read_holds_up_nobody(gateway: RabbitLink, ingest: RabbitLink) -> None:
    count = MOST_MESSAGES * 3
    async with LogTail(gateway).follow(Pattern()) as slow, LogTail(gateway).follow(Pattern()) as quick:
        for number in range(count):
            say(ingest, "ingest", "error", f"{number}")
            async with asyncio.timeout(10):
                assert [line.event for line in await quick.next()] == [f"{number}"]
        await eventually(lambda: holds(gateway, {"mine": count}))
        heard = []
        with suppress(TimeoutError):
            while True:
                async with asyncio.timeout(0.5):
                    heard += [line.event for line in await slow.next()]
    assert len(heard) < count
    assert heard[-1] == f"{count - 1}"


async def test_followers_hear_that_lines_may_be_missing(broker: VirtualHost, gateway: RabbitLink) -> None:
    async with LogTail(gateway).follow(Pattern()) as following:
        await eventually(lambda: closed(broker))
        async with asyncio.timeout(10):
            with pytest.raises(LostLines):
                await following.next()


async def closed(broker: VirtualHost) -> bool:
    """Close the gateway's connections, once the management knows of them."""
    found = bool(await broker.connections())
    await broker.close_connections()
    return found
