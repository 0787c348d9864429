"""A wire between a client and a server that a test can freeze, cut and close."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator


class Line:
    """Forwards bytes to one server until told otherwise."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._flows = asyncio.Event()
        self._flows.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._handlers: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.port = 0
        self.passes_ends = True
        """When false, what a closing side says comes through, but not that it has closed."""
        self.end_was_kept = asyncio.Event()

    async def open(self) -> None:
        """Listen, the first time on a free port, later on the same."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def freeze(self) -> None:
        """Nothing comes through any more and nobody is told: a stopped process, a lost route."""
        self._flows.clear()

    def thaw(self) -> None:
        """What was held back comes through, and all that follows."""
        self._flows.set()

    def cut(self) -> None:
        """Break every connection; new ones are taken."""
        for writer in self._writers:
            writer.transport.abort()

    async def close(self) -> None:
        """Break every connection and refuse new ones until `open`."""
        self.thaw()
        if self._server is not None:
            self._server.close()
            self.cut()
            while self._handlers:  # one that is only being made is cut as soon as it is there
                await asyncio.wait(self._handlers, timeout=0.05)
                self.cut()
            self._writers.clear()
            await self._server.wait_closed()
            self._server = None

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handler = asyncio.current_task()
        assert handler is not None
        self._handlers.add(handler)
        self._writers.add(writer)
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
        except OSError:
            self._writers.discard(writer)
            writer.transport.abort()
        else:
            await asyncio.gather(self._copy(reader, far_writer), self._copy(far_reader, writer))
        finally:
            self._handlers.discard(handler)

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            with contextlib.suppress(OSError):
                while data := await reader.read(65536):
                    await self._flows.wait()
                    writer.write(data)
                    await writer.drain()
        finally:
            if self.passes_ends:
                self._writers.discard(writer)
                writer.close()
            else:
                self.end_was_kept.set()


@contextlib.asynccontextmanager
async def line_to(host: str, port: int) -> AsyncIterator[Line]:
    """An open line, closed at the end."""
    line = Line(host, port)
    await line.open()
    try:
        yield line
    finally:
        await line.close()
