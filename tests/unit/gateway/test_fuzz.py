"""Requests with bytes changed at random: never a 500, never a dead server, never a grown one."""

from __future__ import annotations

import asyncio
from random import Random

from tests.unit.gateway.door import House

GOOD = (
    b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /v1/datasets?limit=5&order=asc HTTP/1.1\r\nHost: x\r\nX-API-Key: AAAAAAAAAAAAAAAA\r\n\r\n",
    b"GET /v1/datasets/0193ffff-0000-7000-8000-000000000000/readings?start=2026-01-01T00:00:00Z HTTP/1.1\r\n"
    b"Host: x\r\nPrefer: wait=3\r\nX-Request-Id: mine\r\n\r\n",
    b"POST /v1/setup HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nIdempotency-Key: a\r\n"
    b'Content-Length: 56\r\n\r\n{"name":"ann","email":"a@b.c","password":"correct horse"}',
    b"POST /v1/sessions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json; charset=utf-8\r\n"
    b'Transfer-Encoding: chunked\r\n\r\n1a\r\n{"name":"a","password":"b"}\r\n0\r\n\r\n',
)
STRANGE = (
    *(b"\0", b"\r\n", b"\n", b" ", b"\xff", b"\xed\xa0\x80", b":", b"%", b'"', b"\t", b""),
    b"[" * 2_000,
    b"9" * 30,
)
TRIES = 400


def spoilt(random: Random) -> bytes:
    data = bytearray(random.choice(GOOD))
    for _ in range(random.randint(1, 4)):
        at = random.randrange(len(data))
        data[at : at + random.randint(0, 3)] = random.choice(STRANGE)
    return bytes(data)


async def statuses(house: House, data: bytes) -> list[int]:
    """The status of every answer; nothing more will be sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", house.door.port)
    writer.write(data)
    writer.write_eof()
    said = b""
    try:
        async with asyncio.timeout(5):
            while part := await reader.read(65_536):
                said += part
                if b"\r\n\r\n" in said:
                    break
    except (ConnectionError, TimeoutError):
        pass
    writer.close()
    return [int(line.split(b" ")[1]) for line in said.split(b"\r\n") if line.startswith(b"HTTP/1.")]


async def test_no_change_of_bytes_is_our_mistake(house: House) -> None:
    random = Random(7)
    seen: set[int] = set()
    for _ in range(TRIES):
        data = spoilt(random)
        for status in await statuses(house, data):
            assert status < 500, data
            seen.add(status)
    assert {400, 404, 415, 422} <= seen
    assert (await house.request("GET", "/healthz")).status == 200
