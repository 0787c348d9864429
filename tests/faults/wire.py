"""An HTTP client that knows exactly what it has sent: keep-alive, no repeats of its own, nothing hidden."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

ANSWER_SECONDS = 40.0
MOST_BYTES = 1 << 20


class NotSent(Exception):
    """The connection could not be made: nothing of the request has left."""


class NoAnswer(Exception):
    """The request was sent and no complete answer came."""


@dataclass(frozen=True)
class Answer:
    """One complete answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)


class Wire:
    """One connection at a time to one server, opened again when the server has closed it."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self.connects = 0
        self.asked = 0
        """Requests on the connection that is open now."""

    async def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> Answer:
        """Send one request and read all of its answer; raises NotSent or NoAnswer."""
        reader, writer = await self._open()
        self.asked += 1
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                writer.write(_request(method, path, f"{self._host}:{self._port}", body, headers or {}))
                answer = await _answer(reader)
        except (OSError, EOFError, TimeoutError, ValueError) as error:
            self.close()
            raise NoAnswer(f"{method} {path}: {error!r}") from error
        if answer.headers.get("connection", "").lower() == "close":
            self.close()
        return answer

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._reader is not None and self._writer is not None:
            if not self._reader.at_eof() and not self._writer.is_closing():
                return self._reader, self._writer
            self.close()  # closed between two requests: nothing was sent, nothing is lost
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                made = await asyncio.open_connection(self._host, self._port, limit=MOST_BYTES)
        except (OSError, TimeoutError) as error:
            raise NotSent(repr(error)) from error
        self._reader, self._writer = made
        self.connects, self.asked = self.connects + 1, 0
        return made

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None


def _request(method: str, path: str, host: str, body: Any, headers: dict[str, str]) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    data = b"" if body is None else json.dumps(body).encode()
    if data:
        lines += ["Content-Type: application/json", f"Content-Length: {len(data)}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


async def _answer(reader: asyncio.StreamReader) -> Answer:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {}
    for line in head[1:]:
        name, colon, value = line.partition(":")
        if colon:
            headers[name.lower()] = value.strip()
    if headers.get("transfer-encoding") == "chunked":
        body = await _chunks(reader)
    else:
        body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Answer(int(head[0].split()[1]), headers, body)


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    """A body in chunks, whole only with its last chunk (RFC 9112, 7.1)."""
    parts = []
    while size := int(await reader.readline(), 16):
        parts.append(await reader.readexactly(size))
        await reader.readexactly(2)
    await reader.readexactly(2)
    return b"".join(parts)
