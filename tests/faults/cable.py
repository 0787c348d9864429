"""A TCP proxy before an instance's broker: connections can be reset, fall silent, or be half open."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.line import Line


class Cable(Line):
    """A line to the broker of an instance that may not have been started yet."""

    def __init__(self, directory: Path) -> None:
        super().__init__("127.0.0.1", 0)
        self._ports = directory / "run" / "ports.json"
        self._near: set[asyncio.StreamWriter] = set()

    def half_open(self) -> None:
        """Break the clients' side; the broker is not told, and thinks that they are still there."""
        self.passes_ends = False
        for writer in list(self._near):
            writer.transport.abort()
        asyncio.get_running_loop().call_later(1, setattr, self, "passes_ends", True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._target = ("127.0.0.1", json.loads(self._ports.read_text())["amqp"])
        self._near.add(writer)
        try:
            await super()._accept(reader, writer)
        finally:
            self._near.discard(writer)


@asynccontextmanager
async def cable_to_broker_of(directory: Path) -> AsyncIterator[Cable]:
    """Open until the end of the block."""
    cable = Cable(directory)
    await cable.open()
    try:
        yield cable
    finally:
        await cable.close()
