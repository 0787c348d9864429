"""What a process says about itself in figures."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Gauge

from shared import http


async def test_what_is_missing_is_among_the_figures() -> None:
    async def away() -> Mapping[str, str]:
        return {"database": "refused"}

    text = (await http.exposition(http.registry(), away)).decode()
    assert "posthouse_ready 0.0" in text
    assert 'posthouse_missing{dependency="database"} 1.0' in text
    assert "process_resident_memory_bytes" in text


async def test_a_process_that_misses_nothing_is_ready() -> None:
    async def nothing() -> Mapping[str, str]:
        return {}

    text = (await http.exposition(http.registry(), nothing)).decode()
    assert "posthouse_ready 1.0" in text
    assert "posthouse_missing{" not in text


async def test_whoever_does_not_read_the_figures_holds_up_no_end() -> None:
    async def nothing() -> Mapping[str, str]:
        return {}

    figures = CollectorRegistry()
    many = Gauge("many", "Figures that fill every buffer", ["number"], registry=figures)
    for number in range(20_000):
        many.labels(number)
    runner = await http.serve_ops(http.ops_app("test", "", nothing, figures), "127.0.0.1:0")
    with socket.create_connection(runner.addresses[0]) as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 20)
        await asyncio.get_running_loop().run_in_executor(None, client.recv, 1)
        began = time.monotonic()
        await runner.cleanup()
        assert time.monotonic() - began < 10
