"""Exports: flat memory, back-pressure, a client that goes, a service that breaks."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from shared.bus.requests import ServiceFailed, Unavailable
from shared.contracts.ingest import ExportReadings
from tests.unit.gateway.door import House

PART = b"x" * 65_536


@pytest.fixture
async def path(house: House, token: str) -> str:
    return f"/v1/datasets/{(await house.dataset(token))['id']}/readings.csv"


async def test_a_refusal_before_the_first_part_is_a_problem(house: House, token: str) -> None:
    answer = await house.request(
        "GET", "/v1/datasets/0193ffff-0000-7000-8000-000000000000/readings.csv", token=token
    )
    assert (answer.status, answer.json["code"]) == (404, "not_found")
    house.services.failing[ExportReadings.topic] = Unavailable("away")
    answer = await house.request("GET", "/v1/datasets/0193ffff-0000-7000-8000-000000000000/readings.csv")
    assert answer.status == 503


async def test_an_empty_export_is_an_empty_file(house: House, path: str) -> None:
    async def nothing(query: ExportReadings) -> AsyncIterator[bytes]:
        return
        yield b""

    house.services.parts = nothing
    answer = await house.request("GET", path)
    assert (answer.status, answer.body) == (200, b"")


async def test_a_break_in_the_middle_does_not_look_like_the_end(house: House, path: str) -> None:
    async def breaks(query: ExportReadings) -> AsyncIterator[bytes]:
        yield b"at,t\n"
        raise ServiceFailed("bug")

    house.services.parts = breaks
    for version in ("1.1", "1.0"):
        reader, writer = await asyncio.open_connection("127.0.0.1", house.door.port)
        writer.write(f"GET {path} HTTP/{version}\r\nHost: x\r\n\r\n".encode())
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
    text = (await house.request("GET", "/metrics")).body.decode()
    assert 'calls_total{outcome="internal",topic="ingest.export_readings"} 2.0' in text


async def test_a_client_that_does_not_read_stops_the_service_and_one_that_goes_ends_it(
    house: House, path: str
) -> None:
    sent = 0
    closed = asyncio.Event()

    async def endless(query: ExportReadings) -> AsyncIterator[bytes]:
        nonlocal sent
        try:
            while True:
                sent += 1
                yield PART
        finally:
            closed.set()

    house.services.parts = endless
    reader, writer = await asyncio.open_connection("127.0.0.1", house.door.port, limit=len(PART))
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    await reader.readuntil(b"\r\n\r\n")
    before = -1
    while sent != before:
        before = sent
        for _ in range(200):
            await asyncio.sleep(0)
    assert sent < 1_000
    writer.transport.abort()
    async with asyncio.timeout(5):
        await closed.wait()


async def test_what_a_client_did_not_take_is_let_go_of_when_it_goes(house: House, path: str) -> None:
    """Without a search for cycles, which may be hours away: fifty slow readers held 30 MB so."""

    async def endless(query: ExportReadings) -> AsyncIterator[bytes]:
        while True:
            yield PART

    house.services.parts = endless
    before = sys.getrefcount(PART)
    gc.disable()
    try:
        for _ in range(3):
            reader, writer = await asyncio.open_connection("127.0.0.1", house.door.port, limit=len(PART))
            writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            await reader.readuntil(b"\r\n\r\n")
            for _ in range(200):
                await asyncio.sleep(0)
            writer.transport.abort()
            with suppress(ConnectionError):
                await writer.wait_closed()
        async with asyncio.timeout(5):
            while house.gateway.meter.in_flight:  # noqa: ASYNC110 (a counter tells nobody)
                await asyncio.sleep(0.01)
        assert sys.getrefcount(PART) == before
    finally:
        gc.enable()
