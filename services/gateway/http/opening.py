"""A socket that listens: whoever waits there is let in, not one of them in each turn of the loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from services.gateway.http.connection import Connection

BACKLOG = 1024
AT_ONCE = 64


class Opening:
    """A listening socket, and what is made of who comes in there.

    uvloop accepts one connection in a turn of its loop (libuv since 1.45, its pull request 3696). A turn of a
    busy gateway takes tens of milliseconds, and a hundred devices that come at once would wait for seconds:
    the others are taken here, as soon as the first one is seen.
    """

    def __init__(
        self,
        listening: socket.socket,
        make: Callable[[], Connection],
        *,
        is_shared: bool,
        options: dict[str, Any],
    ) -> None:
        self.port: int = listening.getsockname()[1]
        self._listening = listening
        self._make = make
        self._is_shared = is_shared
        self._options = options
        self._loop = asyncio.get_running_loop()
        # Kept open when uvloop has closed its own: that would reset what the kernel has accepted.
        self._own = listening.dup()
        self._own.setblocking(False)
        self._server: asyncio.AbstractServer | None = None
        self._coming: set[asyncio.Task[Any]] = set()

    async def open(self) -> None:
        """Let in whoever comes."""
        self._server = await self._loop.create_server(
            self._one_came, sock=self._listening, backlog=BACKLOG, **self._options
        )

    def _one_came(self) -> Connection:
        self._loop.call_soon(self._let_in, AT_ONCE)
        return self._make()

    def _let_in(self, most: int) -> None:
        for _ in range(most):
            try:
                connection, _ = self._own.accept()
            except OSError:  # nobody else is there, or we have closed
                return
            connection.setblocking(False)
            coming = self._loop.connect_accepted_socket(self._make, connection, **self._options)
            task = self._loop.create_task(coming)
            self._coming.add(task)
            task.add_done_callback(self._came)

    def _came(self, task: asyncio.Task[Any]) -> None:
        self._coming.discard(task)
        if not task.cancelled():
            task.exception()  # whoever did not shake hands is gone, and nobody is to be told

    def close(self) -> None:
        """Let in who was there already, then nobody.

        A socket that others share too stays open there: they accept what waits in it.
        """
        if self._server is not None:
            self._server.close()
        if not self._is_shared:
            self._let_in(BACKLOG + 1)
        self._own.close()

    async def wait_closed(self, seconds: float) -> None:
        """Return when everybody who was let in is connected, or after so many seconds."""
        if self._coming:
            await asyncio.wait(self._coming, timeout=seconds)
