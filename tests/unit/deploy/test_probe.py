"""A server is ready when it says so in its own protocol, not when its port is open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from deploy.local.probe import answers

HTTP_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
HTTP_BUSY = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def server(*replies: bytes) -> AsyncIterator[int]:
    """Answers one thing after the other, one for each piece it is sent."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for reply in replies:
            await reader.read(4096)
            writer.write(reply)
        await reader.read(4096)
        writer.close()

    running = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with running:
        yield running.sockets[0].getsockname()[1]


@pytest.mark.parametrize(
    ("probe", "reply", "ready"),
    [
        ("http://127.0.0.1:{}/readyz", HTTP_OK, True),
        ("http://127.0.0.1:{}/readyz", HTTP_BUSY, False),
        ("http://127.0.0.1:{}/readyz", b"", False),
        ("postgres://127.0.0.1:{}", b"R\x00\x00\x00\x17", True),
        ("postgres://127.0.0.1:{}", b"E\x00\x00\x00\x57", False),
        ("redis://:word@127.0.0.1:{}", b"+OK\r\n+PONG\r\n", True),
        ("redis://127.0.0.1:{}", b"+PONG\r\n", True),
        ("redis://:word@127.0.0.1:{}", b"+OK\r\n-LOADING Valkey is loading the dataset\r\n", False),
    ],
)
async def test_only_the_right_answer_counts(probe: str, reply: bytes, ready: bool) -> None:
    async with server(reply) as port:
        assert await asyncio.to_thread(answers, probe.format(port), 0.5) is ready


@pytest.mark.parametrize("scheme", ["http", "postgres", "redis", "epmd", "tcp"])
def test_where_nobody_listens_nobody_is_ready(scheme: str, unused_tcp_port: int) -> None:
    assert not answers(f"{scheme}://127.0.0.1:{unused_tcp_port}", 0.5)
