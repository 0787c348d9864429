"""Slow and silent clients are closed; what is only long is served."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from types import SimpleNamespace

import pytest

from services.gateway.http import operations
from shared.contracts.ingest import CreateDataset, ExportReadings
from shared.vault import Vault
from tests.unit.gateway.door import House, open_house, read_answer

SHORT = 0.3
PATIENCE = 10.0
HEAD = b"POST /v1/setup HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"


@pytest.fixture
async def hasty(vault: Vault) -> AsyncIterator[House]:
    limits = {"header_seconds": SHORT, "body_seconds": SHORT, "idle_seconds": 2 * SHORT}
    async with open_house(vault, body_bytes_per_second=1_000, **limits) as house:
        yield house


async def seconds_until_closed(house: House, first: bytes, again: bytes = b"") -> tuple[float, bytes]:
    """How long the server keeps a connection that sends `first`, then `again` every 50 ms; what it said."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    reader, writer = await asyncio.open_connection("127.0.0.1", house.door.port)
    writer.write(first)
    said = b""
    try:
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    part = await asyncio.wait_for(reader.read(65_536), 0.05)
                except TimeoutError:
                    writer.write(again)
                    continue
                if not part:
                    break
                said += part
    except ConnectionError:
        pass
    writer.close()
    return loop.time() - began, said


SLOW = {
    "says nothing": (b"", b"", b""),
    "half a request line": (b"GET /heal", b"", b"408"),
    "half its headers": (b"GET / HTTP/1.1\r\nHost: x\r\n", b"", b"408"),
    "headers one by one": (b"GET / HTTP/1.1\r\nHost: x\r\n", b"A: b\r\n", b"408"),
    "half a body": (HEAD + b"{", b"", b"408"),
    "a body byte by byte": (HEAD + b"{", b" ", b"408"),
    "chunk by chunk": (
        HEAD.replace(b"Content-Length: 100", b"Transfer-Encoding: chunked"),
        b"1\r\n \r\n",
        b"408",
    ),
    "silent after its request": (b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", b"", b"200"),
    "half a second request": (b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /he", b"", b"200"),
}


@pytest.mark.parametrize("name", SLOW)
async def test_a_slow_client_is_closed_in_time(hasty: House, name: str) -> None:
    first, again, status = SLOW[name]
    seconds, said = await seconds_until_closed(hasty, first, again)
    assert SHORT / 2 <= seconds < SHORT + 4
    assert said.split(b"\r\n")[0].split(b" ")[1:2] == ([status] if status else [])
    if status == b"408":
        assert b"slow_request" in said


async def test_a_body_that_keeps_its_pace_is_read_to_its_end(hasty: House) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", hasty.door.port)
    length = 2_000
    writer.write(HEAD.replace(b"100", b"%d" % length))
    loop = asyncio.get_running_loop()
    began = loop.time()
    for _ in range(20):
        writer.write(b" " * (length // 20))
        await pause(0.03)
    answer = await read_answer(reader)
    writer.close()
    assert loop.time() - began > SHORT
    assert (answer.status, answer.json["code"]) == (400, "malformed_json")


async def pause(seconds: float) -> None:
    """What a client on a thin line does between two packets."""
    done = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(seconds, done.set_result, None)
    await done


async def test_a_service_may_take_longer_than_any_of_these_limits(hasty: House) -> None:
    hasty.services.hold = asyncio.Event()
    asyncio.get_running_loop().call_later(3 * SHORT, hasty.services.hold.set)
    answer = await hasty.request("POST", "/v1/datasets", token=hasty.services.token(), json={"name": "Roof"})
    assert answer.status == 201
    assert hasty.services.last(CreateDataset)


async def test_a_client_that_does_not_read_its_answer_is_cut(hasty: House) -> None:
    closed = asyncio.Event()

    async def endless(query: ExportReadings) -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x" * 65_536
        finally:
            closed.set()

    hasty.services.parts = endless
    made = await hasty.dataset(hasty.services.token())
    _, writer = await asyncio.open_connection("127.0.0.1", hasty.door.port, limit=1_024)
    writer.write(f"GET /v1/datasets/{made['id']}/readings.csv HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    async with asyncio.timeout(PATIENCE):
        await closed.wait()
    writer.close()


async def taken(house: House, path: str, seconds: float, pause_seconds: float) -> tuple[int, float]:
    """What a client with a small window takes, a thousand bytes at a time, and how long it may."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    made.setblocking(False)
    loop = asyncio.get_running_loop()
    began = loop.time()
    with made:
        await loop.sock_connect(made, ("127.0.0.1", house.door.port))
        await loop.sock_sendall(made, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        size = 0
        try:
            while loop.time() - began < seconds and (part := await loop.sock_recv(made, 1_000)):
                size += len(part)
                await pause(pause_seconds)
        except ConnectionError:
            pass
    return size, loop.time() - began


async def large(query: ExportReadings) -> AsyncIterator[bytes]:
    for _ in range(200):
        yield b"x" * 65_536


@pytest.mark.parametrize(("wanted", "stays"), [(1_000_000, False), (5_000, True)])
async def test_a_client_takes_its_answer_at_the_least_pace_or_is_cut(
    vault: Vault, wanted: int, stays: bool
) -> None:
    async with open_house(vault, body_seconds=SHORT, answer_bytes_per_second=wanted) as house:
        house.services.parts = large
        path = f"/v1/datasets/{(await house.dataset(house.services.token()))['id']}/readings.csv"
        size, seconds = await taken(house, path, 8 * SHORT, 0.01)
    assert size > 4_096
    assert (seconds > 8 * SHORT) == stays


async def test_an_answer_that_is_whole_and_hardly_taken_does_not_stay(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "x" * (8 << 20)  # more than a kernel keeps
    monkeypatch.setattr(operations, "http", SimpleNamespace(VERSION=text))
    limits: dict[str, float] = {"body_seconds": SHORT, "idle_seconds": 2 * SHORT}
    async with open_house(vault, answer_bytes_per_second=1_000_000, **limits) as house:
        size, seconds = await taken(house, "/", PATIENCE, 0.05)
    assert size < len(text)
    assert seconds < PATIENCE


async def test_honest_clients_are_served_while_others_dawdle(hasty: House) -> None:
    async with asyncio.TaskGroup() as group:
        slow = [group.create_task(seconds_until_closed(hasty, b"GET / HTTP/1.1\r\n")) for _ in range(100)]
        honest = [group.create_task(hasty.request("GET", "/healthz")) for _ in range(20)]
    assert [task.result().status for task in honest] == [200] * 20
    assert max(task.result()[0] for task in slow) < SHORT + 4
