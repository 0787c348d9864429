"""Auth behind the bus, its inbox in PostgreSQL: repeats get the same answer, and no row tells a secret."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

import pytest
from argon2 import PasswordHasher
from prometheus_client import CollectorRegistry

from services.auth.deps import deps_of
from services.auth.handlers import routes
from services.auth.hashing import Hasher
from shared.bus import topology
from shared.bus.ids import uuid7
from shared.bus.inbox import PostgresInbox
from shared.bus.memory import MemoryBroker
from shared.bus.requester import BusRequester
from shared.bus.requests import Caller
from shared.bus.service import Service
from shared.contracts.auth import Account, ListSigningKeys, OpenSession, RefreshSession, SessionOpened, SetUp
from shared.db import Database
from shared.errors import Refusal, TooMany
from shared.vault import Vault
from tests.integration.auth_service import PASSWORD, everything, quick_tools
from tests.servers import Place


class GatedArgon2(PasswordHasher):
    """Verifies while its gate is open."""

    def __init__(self) -> None:
        super().__init__(memory_cost=64, time_cost=1, parallelism=1)
        self.open = threading.Event()
        self.open.set()

    def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:
        self.open.wait(30)
        return super().verify(hash, password)


@dataclass
class Front:
    """What the gateway does: seals, asks, and opens what comes back."""

    argon2: GatedArgon2
    requester: BusRequester
    vault: Vault

    async def set_up(self, name: str = "ann", frame: UUID | None = None) -> Account:
        message = SetUp(name=name, email=f"{name}@example.org", password=self._sealed(PASSWORD))
        return await self.requester.ask(message, self._caller(frame))

    async def open_session(self, password: str = PASSWORD, frame: UUID | None = None) -> SessionOpened:
        message = OpenSession(name="ann", password=self._sealed(password))
        return await self.requester.ask(message, self._caller(frame))

    async def refresh(self, session: SessionOpened) -> SessionOpened:
        return await self.requester.ask(
            RefreshSession(refresh_token=session.refresh_token), self._caller(None)
        )

    async def kids(self) -> list[str]:
        reply = await self.requester.ask(ListSigningKeys(), self._caller(None))
        return [key.kid for key in reply.keys]

    def _sealed(self, password: str) -> bytes:
        return self.vault.seal(password, "auth.password")

    def _caller(self, frame: UUID | None) -> Caller:
        return Caller(id=frame or uuid7(), request_id="r-1")


@pytest.fixture
async def front(database: Place, vault: Vault) -> AsyncIterator[Front]:
    """A gateway's side of a running auth."""
    argon2 = GatedArgon2()
    db = Database(database.url("auth"), size=12, application_name="test")
    await db.open()
    inbox = PostgresInbox(db)
    await inbox.keep_partitions(24)
    broker = MemoryBroker([*topology.service_queues("auth"), *topology.shared_queues()])
    gateway = broker.link("gateway")
    requester = BusRequester(gateway)
    await gateway.open_replies(requester.on_reply)
    with Hasher(argon2, workers=2, queue=64) as hasher:
        tools = quick_tools(vault, hasher)
        service = Service(
            routes,
            broker.link("auth"),
            inbox,
            lambda call: deps_of(call, tools),
            registry=CollectorRegistry(),
        )
        await service.start()
        yield Front(argon2, requester, vault)
        await service.stop(5)
    broker.close()
    await db.close()


async def test_a_repeat_of_a_frame_gets_the_same_answer(front: Front) -> None:
    first, second = uuid7(), uuid7()
    assert await front.set_up(frame=first) == await front.set_up(frame=first)
    assert await front.open_session(frame=second) == await front.open_session(frame=second)
    assert await front.open_session() != await front.open_session()


async def test_a_refusal_is_repeated_too(front: Front) -> None:
    await front.set_up()
    frame = uuid7()
    for _ in range(2):
        with pytest.raises(Refusal) as refused:
            await front.open_session("twelve purple kettles", frame)
        assert (refused.value.status, refused.value.code) == (401, "wrong_credentials")


async def test_of_fifty_commands_that_race_one_wins(front: Front) -> None:
    results = await asyncio.gather(*(front.set_up(f"racer{n}") for n in range(50)), return_exceptions=True)
    assert len([result for result in results if isinstance(result, Account)]) == 1
    assert [result.code for result in results if isinstance(result, Refusal)] == ["already_set_up"] * 49


async def test_neither_queue_nor_inbox_row_tells_a_password_or_a_token(front: Front, database: Place) -> None:
    await front.set_up()
    session = await front.open_session()
    token = front.vault.unseal(session.access_token, "auth.token")
    dump = await everything(database)
    assert session.access_token.hex() in dump
    for secret in (PASSWORD, token, token.rpartition(".")[2]):
        assert secret not in dump
        assert secret.encode().hex() not in dump


async def test_a_crowd_that_signs_in_leaves_room_for_others(front: Front) -> None:
    """For questions and for commands, although eight commands at most run at a time."""
    await front.set_up()
    session = await front.open_session()
    front.argon2.open.clear()
    crowd = asyncio.gather(*(front.open_session() for _ in range(30)), return_exceptions=True)
    assert await front.kids()
    assert (await front.refresh(session)).session_id == session.session_id
    assert not crowd.done()
    front.argon2.open.set()
    assert {type(result) for result in await crowd} == {SessionOpened}


async def test_more_than_may_wait_are_told_at_once(front: Front) -> None:
    await front.set_up()
    front.argon2.open.clear()
    crowd = [asyncio.create_task(front.open_session()) for _ in range(60)]
    refused, _ = await asyncio.wait(crowd, return_when=asyncio.FIRST_COMPLETED)
    assert {type(task.exception()) for task in refused} == {TooMany}
    front.argon2.open.set()
    results = await asyncio.gather(*crowd, return_exceptions=True)
    assert [type(result) for result in results].count(SessionOpened) >= 32
