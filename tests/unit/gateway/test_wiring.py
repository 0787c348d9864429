"""What the gateway hears from the bus and says about it, with the broker in memory."""

from __future__ import annotations

import asyncio
import socket
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass

import msgspec
import pytest

from services.gateway.http.app import make_app
from services.gateway.http.server import Door
from services.gateway.readiness import counter, watcher
from services.gateway.revocations import TOPICS, listener
from services.gateway.session import Callers
from shared.bus import codec
from shared.bus.codec import Frame
from shared.bus.ids import uuid7
from shared.bus.link import Outgoing
from shared.bus.memory import MemoryBroker, MemoryLink
from shared.bus.requester import BusRequester, Depth
from shared.bus.requests import Caller
from shared.bus.topology import EVENTS
from shared.contracts.base import Principal
from shared.contracts.ingest import CreateDataset, DatasetKeyRevoked
from shared.vault import Vault
from tests.unit.gateway.door import House, settings
from tests.unit.gateway.services import Services


@pytest.fixture
async def broker() -> AsyncIterator[MemoryBroker]:
    broker = MemoryBroker([])
    yield broker
    broker.close()


@pytest.fixture
async def link(broker: MemoryBroker) -> MemoryLink:
    return broker.link("gateway")


def event(body: bytes) -> Outgoing:
    frame = Frame(
        id=uuid7(),
        topic=DatasetKeyRevoked.topic,
        kind="event",
        body=msgspec.Raw(body),
        principal=Principal(kind="service", id="ingest"),
    )
    return Outgoing(EVENTS, frame.topic, codec.join([codec.encode(frame)]))


class Known:
    """Callers that remember one key."""

    def __init__(self, vault: Vault) -> None:
        self.services = Services(vault)
        self.callers = Callers(self.services, vault, time.time)
        self.headers: dict[str, str] = {}
        self.digest = b""

    async def learn(self) -> None:
        """Make a dataset and call with its key."""
        made = await self.services.ask(CreateDataset(name="a"), Caller(id=uuid7(), request_id="r"))
        key = self.services.keys[made.dataset.id][1]
        self.headers = {"X-API-Key": key}
        self.digest = self.services.vault.digest(key, "ingest.key")
        await self.callers.identify(self.headers)
        assert self.is_known

    @property
    def is_known(self) -> bool:
        """Whether the next request with the key needs nobody."""
        return self.callers.at_once(self.headers) is not None


@pytest.fixture
async def known(vault: Vault) -> Known:
    known = Known(vault)
    await known.learn()
    return known


async def heard(link: MemoryLink, known: Known, message: Outgoing) -> None:
    done = asyncio.Event()
    hear = listener(known.callers)

    def and_say_so(delivery: object) -> None:
        hear(delivery)  # type: ignore[arg-type]
        done.set()

    await link.hear(TOPICS, and_say_so, known.callers.drop_all)
    await link.broker.link("ingest").publish(message)
    async with asyncio.timeout(5):
        await done.wait()


async def test_a_revoked_key_is_forgotten_when_the_event_comes(link: MemoryLink, known: Known) -> None:
    revoked = DatasetKeyRevoked(dataset_id=uuid.uuid4(), digests=(known.digest,))
    await heard(link, known, event(bytes(codec.body_of(revoked))))
    assert not known.is_known


@pytest.mark.parametrize("body", [b"\xc1", b"\x80", b"\xc0"])
async def test_a_revocation_nobody_can_read_forgets_everybody(
    link: MemoryLink, known: Known, body: bytes
) -> None:
    await heard(link, known, event(body))
    assert not known.is_known


async def test_losing_the_queue_of_revocations_forgets_everybody(link: MemoryLink, known: Known) -> None:
    await link.hear(TOPICS, listener(known.callers), known.callers.drop_all)
    link.cut()
    assert not known.is_known


@dataclass
class Line:
    """A link as far as readiness looks at it."""

    up: bool
    trouble: str = ""


async def test_what_is_missing_is_named_until_nothing_is(link: MemoryLink, vault: Vault) -> None:
    services = Services(vault)
    callers = Callers(services, vault)
    requester = BusRequester(link)
    line = Line(up=False, trouble="connection refused")
    missing = watcher(line, requester, callers, ("auth", "ingest"))
    assert await missing() == {"broker": "connection refused"}
    line.up = True
    requester.depths["auth"] = Depth(0, 1)
    assert await missing() == {"ingest": "its queue is not there"}
    requester.depths["ingest"] = Depth(5, 0)
    assert await missing() == {"ingest": "no process takes from its queue"}
    requester.depths["ingest"] = Depth(5, 2)
    assert await missing() == {"auth": "no signing keys yet"}
    await callers.learn_signing_keys()
    assert await missing() == {}
    requester.depths["ingest.queries"] = Depth(0, 2)
    assert counter(requester)() == {"auth": 1, "ingest": 2}


async def test_a_listening_socket_can_come_from_outside(vault: Vault) -> None:
    """Two gateways on one socket share its queue of accepted connections: stopping one loses none."""
    with socket.create_server(("127.0.0.1", 0)) as given:
        port = given.getsockname()[1]
        doors = []
        for _ in range(2):
            same = given.dup()
            chosen = settings(listen_fd=same.detach())
            door = Door(make_app(Services(vault), vault, chosen), chosen)
            await door.open()
            assert door.port == port
            doors.append(door)
        house = House(doors[1], Services(vault), None)  # type: ignore[arg-type]
        await doors[0].stop()
        for _ in range(20):
            assert (await house.request("GET", "/healthz")).status == 200
        await doors[1].stop()
