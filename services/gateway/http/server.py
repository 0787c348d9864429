"""The listening side: our connections instead of aiohttp's, and a stop without a failed request."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from aiohttp import web

from services.gateway.http.connection import FIELD_BYTES, LINE_BYTES, Connection
from services.gateway.http.front import FRONT, Handle
from services.gateway.http.gateway import GATEWAY
from services.gateway.http.proxies import networks
from services.gateway.http.short_way import SHORT_WAY, ShortWay
from services.gateway.settings import Settings

MOST_HEADERS = 100
BACKLOG = 1024
LINGER_SECONDS = 2.0  # how long the rest of a refused body is read, so that its sender hears the answer


class Listener(web.Server):
    """Makes our connections instead of aiohttp's and looks after them."""

    def __init__(
        self, plain: web.Server, handle: Handle, limits: Settings, short_way: ShortWay, **options: Any
    ) -> None:
        super().__init__(handle, request_factory=plain.request_factory)
        self._limits = limits
        self._short_way = short_way
        self._trusted = networks(limits.trusted_proxies)
        self._options = options
        self._period = min(max(min(limits.header_seconds, limits.body_seconds) / 10, 0.02), 1.0)
        self._next = self._loop.call_later(self._period, self._check)

    def __call__(self) -> Connection:
        """One connection."""
        return Connection(
            self, self._limits, self._short_way, self._trusted, loop=self._loop, **self._options
        )

    def _check(self) -> None:
        self._next = self._loop.call_later(self._period, self._check)
        # What would be overdue before the next look is closed now: late by nothing, early by a period.
        soon = self._loop.time() + self._period
        for connection in self.connections:
            if isinstance(connection, Connection):
                connection.check(soon)

    async def shutdown(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 (overrides)
        """Close what is left."""
        self._next.cancel()
        await super().shutdown(timeout)


class _Runner(web.AppRunner):
    """aiohttp's runner with our listener."""

    def __init__(self, app: web.Application, limits: Settings) -> None:
        super().__init__(app, access_log=None, shutdown_timeout=0.5)
        self._limits = limits

    async def _make_server(self) -> Listener:
        plain = await super()._make_server()
        return Listener(
            plain,
            self.app[FRONT].around(plain.request_handler),
            self._limits,
            self.app[SHORT_WAY],
            access_log=None,
            auto_decompress=False,  # a compressed body is refused (415), so no bomb is ever opened
            keepalive_timeout=self._limits.idle_seconds,
            lingering_time=LINGER_SECONDS,
            max_line_size=LINE_BYTES,
            max_field_size=FIELD_BYTES,
            max_headers=MOST_HEADERS,
        )


class Door:
    """An open listener; `stop` closes it without failing a request.

    Stopping: every answer says `Connection: close`; what the kernel has accepted already is still served,
    then nobody is let in; a connection that stays silent for `quiet_seconds` is closed, the others
    when their answer or stream is complete; after `drain_seconds` what still runs is cut.
    """

    def __init__(self, app: web.Application, settings: Settings) -> None:
        self._runner = _Runner(app, settings)
        self._stopping = app[GATEWAY].stopping
        self._settings = settings
        self._socket: socket.socket | None = None
        self._site: web.SockSite | None = None
        self.port = 0

    async def open(self) -> None:
        """Listen."""
        await self._runner.setup()
        listening = _listening_socket(self._settings)
        self.port = listening.getsockname()[1]
        if not self._settings.listen_fd:
            self._socket = listening.dup()
        self._site = web.SockSite(self._runner, listening, backlog=BACKLOG)
        await self._site.start()

    async def stop(self) -> None:
        """Return when every request is answered, or `drain_seconds` are over."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        settings, loop, server = self._settings, asyncio.get_running_loop(), self._runner.server
        began = loop.time()
        await self._close_listener()
        while server is not None and loop.time() - began < settings.drain_seconds:
            if all(connection.transport is None for connection in server.connections):
                break
            await asyncio.sleep(0.02)
            if (now := loop.time()) - began >= settings.quiet_seconds:
                _close_quiet(server, now, settings.quiet_seconds)
        await self._runner.cleanup()

    async def _close_listener(self) -> None:
        if self._site is not None:
            await self._site.stop()
        if self._socket is None:
            return  # the socket came from outside: whoever shares it accepts what is queued
        # Closing a listener resets what the kernel has accepted and we have not: take it first.
        self._socket.setblocking(False)
        loop = asyncio.get_running_loop()
        server = self._runner.server
        assert server is not None
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                break
            connection.setblocking(False)
            await loop.connect_accepted_socket(server, connection)
        self._socket.close()


def _close_quiet(server: web.Server, now: float, seconds: float) -> None:
    for connection in server.connections:
        if isinstance(connection, Connection) and connection.is_quiet(now, seconds):
            connection.force_close()


def _listening_socket(settings: Settings) -> socket.socket:
    if settings.listen_fd:
        return socket.socket(fileno=settings.listen_fd)
    host = settings.host or settings.listen
    return socket.create_server(
        (host, settings.port),
        family=socket.AF_INET6 if ":" in host else socket.AF_INET,
        backlog=BACKLOG,
        reuse_port=settings.reuse_port,
        dualstack_ipv6=host == "::" and socket.has_dualstack_ipv6(),
    )
