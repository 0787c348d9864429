"""Stopping: what is under way is answered, nobody new is let in, and no client hears a lie."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from services.gateway.http.app import make_app
from services.gateway.http.server import Door
from shared.contracts.ingest import ExportReadings
from shared.vault import Vault
from tests.unit.gateway.door import House, open_house, read_answer, settings
from tests.unit.gateway.services import Services

HEALTH = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
READY = b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n"


async def test_a_request_under_way_is_answered_and_told_to_close(house: House, token: str) -> None:
    house.services.hold = asyncio.Event()
    running = asyncio.create_task(house.request("POST", "/v1/datasets", token=token, json={"name": "a"}))
    await house.services.holding.wait()
    stopping = asyncio.create_task(house.door.stop())
    await house.gateway.stopping.wait()
    house.services.hold.set()
    answer = await running
    assert (answer.status, answer.headers["Connection"]) == (201, "close")
    await stopping


async def test_a_keep_alive_connection_gets_its_next_answer_then_ends(vault: Vault) -> None:
    async with open_house(vault, quiet_seconds=5.0) as house:
        reader, writer = await asyncio.open_connection("127.0.0.1", house.door.port)
        writer.write(HEALTH)
        assert "Connection" not in (await read_answer(reader)).headers
        stopping = asyncio.create_task(house.door.stop())
        await house.gateway.stopping.wait()
        writer.write(READY)
        answer = await read_answer(reader)
        assert (answer.status, answer.headers["Connection"]) == (503, "close")
        assert answer.json["missing"] == {"gateway": "is stopping"}
        assert await reader.read() == b""
        async with asyncio.timeout(2):
            await stopping
        writer.close()


async def test_a_silent_connection_does_not_delay_the_stop(house: House) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", house.door.port)
    writer.write(HEALTH)
    await read_answer(reader)
    async with asyncio.timeout(2):
        await house.door.stop()
    assert await reader.read() == b""
    writer.close()


async def test_a_stream_is_sent_to_its_end(house: House, token: str) -> None:
    go_on = asyncio.Event()

    async def halting(query: ExportReadings) -> AsyncIterator[bytes]:
        yield b"first,"
        await go_on.wait()
        yield b"last"

    house.services.parts = halting
    made = await house.dataset(token)
    reader, writer = await asyncio.open_connection("127.0.0.1", house.door.port)
    writer.write(f"GET /v1/datasets/{made['id']}/readings.csv HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    await reader.readuntil(b"first,")
    stopping = asyncio.create_task(house.door.stop())
    await house.gateway.stopping.wait()
    go_on.set()
    assert (await reader.readuntil(b"0\r\n\r\n")).endswith(b"last\r\n0\r\n\r\n")
    await stopping
    writer.close()


async def test_nobody_new_is_let_in(house: House) -> None:
    port = house.door.port
    await house.door.stop()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


async def test_what_never_ends_is_cut_after_the_limit(vault: Vault) -> None:
    async with open_house(vault, drain_seconds=0.2) as house:
        house.services.hold = asyncio.Event()
        running = asyncio.create_task(
            house.request("POST", "/v1/datasets", token=house.services.token(), json={"name": "a"})
        )
        await house.services.holding.wait()
        async with asyncio.timeout(3):
            await house.door.stop()
        with pytest.raises(Exception, match="disconnected"):
            await running


async def test_clients_of_two_gateways_do_not_notice_that_one_stops(vault: Vault) -> None:
    """Keep-alive and one-shot clients on a shared port: every request that was sent is answered."""
    services = Services(vault)
    first_settings = settings(reuse_port=True, quiet_seconds=0.3)
    first = Door(make_app(services, vault, first_settings), first_settings)
    await first.open()
    second_settings = settings(reuse_port=True, quiet_seconds=0.3, port=first.port)
    second = Door(make_app(services, vault, second_settings), second_settings)
    await second.open()
    answered, failed, first_stopped = 0, 0, False
    some, more, finished = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def client(keep_alive: bool) -> None:
        nonlocal answered, failed
        connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        while not finished.is_set():
            if connection is None:
                connection = await asyncio.open_connection("127.0.0.1", first.port)
            reader, writer = connection
            writer.write(HEALTH)
            try:
                answer = await read_answer(reader)
            except (ConnectionError, asyncio.IncompleteReadError):
                failed += 1
                connection = None
                continue
            answered += answer.status == 200
            if answered >= 500:
                (more if first_stopped else some).set()
            if not keep_alive or answer.headers.get("Connection") == "close":
                writer.close()
                connection = None
        if connection is not None:
            connection[1].close()

    clients = [asyncio.create_task(client(number % 4 != 0)) for number in range(16)]
    await some.wait()
    await first.stop()
    answered, first_stopped = 0, True
    await more.wait()
    finished.set()
    await asyncio.gather(*clients)
    await second.stop()
    assert failed == 0
