"""The example of a slow request: over HTTP, through RabbitMQ, to a worker that takes 1.5 s."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import aiohttp
import pytest

from examples.card_charge.handlers import Deps, routes
from examples.card_charge.routes import routes as shop
from services.gateway.http.app import TABLES, make_app
from services.gateway.http.server import Door
from services.gateway.session import Callers
from services.gateway.settings import Settings
from shared.bus import topology
from shared.bus.codec import decode_frames
from shared.bus.link import Delivery
from shared.bus.memory import MemoryInbox
from shared.bus.rabbit import RabbitLink
from shared.bus.requester import BusRequester
from shared.bus.service import Service
from shared.contracts.base import Principal
from shared.vault import Vault
from tests.broker import VirtualHost
from tests.suites.worlds import eventually

SECONDS = 1.5
TOKEN = {"Authorization": "Bearer of Ann"}


class SlowProvider:
    """Takes its time, and charges a key once."""

    def __init__(self) -> None:
        self.charges: dict[UUID, int] = {}

    async def charge(self, key: UUID, card: str, cents: int) -> str:
        await asyncio.sleep(SECONDS)
        self.charges[key] = cents
        return f"receipt-{key.hex[-8:]}"


class Ann(Callers):
    """Everybody is Ann: who is calling is not what this example shows."""

    def at_once(self, *_: object) -> Principal:
        return Principal(kind="user", id="ann")


class Shop:
    """The gateway's address, the provider, and the events announced."""

    def __init__(self, url: str, provider: SlowProvider, heard: asyncio.Queue[Delivery]) -> None:
        self.url, self.provider, self.heard = url, provider, heard


@pytest.fixture(params=["shared", "request"])
async def open_shop(
    request: pytest.FixtureRequest, amqp_url: str, management_url: str, vault: Vault, secret_key: str
) -> AsyncIterator[Shop]:
    queues = [*topology.service_queues("shop"), *topology.shared_queues()]
    rights = {"gateway": topology.gateway_rights(), "shop": topology.service_rights("shop")}
    async with VirtualHost(amqp_url, management_url, queues, rights) as broker:
        gateway = RabbitLink(broker.url("gateway"), "gateway")
        requester = BusRequester(gateway, request_queues=request.param == "request")
        heard: asyncio.Queue[Delivery] = asyncio.Queue()
        await gateway.open_replies(requester.on_reply)
        await gateway.hear(("shop.#",), heard.put_nowait, lambda: None)
        worker = RabbitLink(broker.url("shop"), "shop")
        provider = SlowProvider()
        service = Service(routes, worker, MemoryInbox(), lambda call: Deps(call.id, provider))
        for link in (gateway, worker):
            link.start()

        async def up() -> bool:
            return gateway.up and worker.up

        await eventually(up)
        await service.start()
        settings = Settings(amqp_url="", secret_key=secret_key, port=0)
        app = make_app(requester, vault, settings, callers=Ann(requester, vault), tables=(*TABLES, shop))
        door = Door(app, settings)
        await door.open()
        yield Shop(f"http://127.0.0.1:{door.port}/v1/charges", provider, heard)
        await door.stop()
        await service.stop(5)
        await gateway.close()
        await worker.close()


async def test_a_slow_charge_is_waited_for_and_announced(open_shop: Shop) -> None:
    body = {"card": "tok-1234", "cents": 1999}
    async with (
        aiohttp.ClientSession(headers=TOKEN) as session,
        session.post(open_shop.url, json=body) as response,
    ):
        assert response.status == 201, await response.text()
        charged = await response.json()
    assert charged["cents"] == 1999
    delivery = await asyncio.wait_for(open_shop.heard.get(), 5)
    assert decode_frames(delivery.body, "", delivery.properties)[0].topic == "shop.card_charged"


async def test_many_slow_charges_wait_side_by_side_and_a_repeated_key_charges_once(open_shop: Shop) -> None:
    async with aiohttp.ClientSession(headers=TOKEN) as session:

        async def charge(key: str) -> str:
            body = {"card": "tok-1234", "cents": 100}
            async with session.post(open_shop.url, json=body, headers={"Idempotency-Key": key}) as response:
                assert response.status == 201, await response.text()
                return str((await response.json())["receipt"])

        receipts = await asyncio.gather(*(charge(f"k-{number % 8}") for number in range(16)))
    assert len(set(receipts)) == 8
    assert len(open_shop.provider.charges) == 8


async def test_a_charge_nobody_waits_for_long_enough_is_an_unknown_outcome(open_shop: Shop) -> None:
    async with aiohttp.ClientSession(headers=TOKEN) as session:
        headers = {"Prefer": "wait=1", "Idempotency-Key": "k-1"}
        body = {"card": "tok-1234", "cents": 100}
        async with session.post(open_shop.url, json=body, headers=headers) as response:
            problem = await response.json()
        assert (response.status, problem["outcome"], problem["idempotency_key"]) == (504, "unknown", "k-1")
        headers["Prefer"] = "wait=10"
        async with session.post(open_shop.url, json=body, headers=headers) as response:
            assert response.status == 201
    assert len(open_shop.provider.charges) == 1
