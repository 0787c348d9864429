"""The listening side: our connections instead of aiohttp's, and a stop without a failed request."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any

from aiohttp import web

from services.gateway.http.connection import FIELD_BYTES, LINE_BYTES, Connection
from services.gateway.http.front import FRONT, Handle
from services.gateway.http.gateway import GATEWAY
from services.gateway.http.opening import BACKLOG, Opening
from services.gateway.http.proxies import networks
from services.gateway.http.short_way import SHORT_WAY, ShortWay
from services.gateway.http.tls import certificate_of
from services.gateway.settings import Settings

MOST_HEADERS = 100
FEW = 50
HANDSHAKE_SECONDS = 0.2  # an honest one is not cut by a stop, though no connection is open meanwhile
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

    def __call__(self, is_beside_tls: bool = False) -> Connection:
        """One connection."""
        return Connection(
            self,
            self._limits,
            self._short_way,
            self._trusted,
            is_beside_tls=is_beside_tls,
            loop=self._loop,
            **self._options,
        )

    def _check(self) -> None:
        self._next = self._loop.call_later(self._period, self._check)
        # What would be overdue before the next look is closed now: late by nothing, early by a period.
        self._look_at(self.connections, self._loop.time() + self._period)

    def _look_at(self, left: list[Any], soon: float) -> None:
        """A few at a time: a thousand that are closed at once would hold up everybody else."""
        for connection in left[-FEW:]:
            if isinstance(connection, Connection):
                connection.check(soon)
        del left[-FEW:]
        if left:
            self._loop.call_soon(self._look_at, left, soon)

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
    """The open listeners; `stop` closes them without failing a request.

    Stopping: every answer says `Connection: close`; what the kernel has accepted already is still served,
    then nobody is let in; a connection that stays silent for `quiet_seconds` is closed, the others
    when their answer or stream is complete; after `drain_seconds` what still runs is cut.
    """

    def __init__(self, app: web.Application, settings: Settings) -> None:
        self._runner = _Runner(app, settings)
        self._stopping = app[GATEWAY].stopping
        self._settings = settings
        self._certificate = certificate_of(settings.tls_cert, settings.tls_key, settings.http_port)
        if self._certificate is not None:
            app[GATEWAY].meter.certificate_ends = self._certificate_ends
        self._openings: list[Opening] = []
        self.port = 0
        self.http_port = 0

    async def open(self) -> None:
        """Listen."""
        await self._runner.setup()
        server, settings, tls = self._runner.server, self._settings, self._certificate
        assert isinstance(server, Listener)
        if tls is None:
            self.port = await self._listen(settings.port, settings.listen_fd, server, None)
        else:
            self.port = await self._listen(settings.port, settings.listen_fd, server, tls.context)
            tls.tell()
            if settings.http_port or settings.http_listen_fd:
                beside = partial(server, is_beside_tls=True)
                self.http_port = await self._listen(settings.http_port, settings.http_listen_fd, beside, None)

    async def _listen(
        self, port: int, number: int, make: Callable[[], Connection], tls: ssl.SSLContext | None
    ) -> int:
        opening = Opening(
            _listening_socket(self._settings, port, number),
            make,
            is_shared=bool(number),
            options=_of_tls(tls, self._settings),
        )
        self._openings.append(opening)
        await opening.open()
        return opening.port

    def _certificate_ends(self) -> datetime | None:
        return self._certificate.ends if self._certificate is not None else None

    def reload(self) -> None:
        """Read the certificate again; connections that are open keep theirs."""
        if self._certificate is not None:
            self._certificate.reload()

    async def stop(self) -> None:
        """Return when every request is answered, or `drain_seconds` are over."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        settings, loop, server = self._settings, asyncio.get_running_loop(), self._runner.server
        began = loop.time()
        # In this turn of the loop: asyncio drops whom it has accepted and not connected yet.
        for opening in self._openings:
            opening.close()
        for opening in self._openings:
            await opening.wait_closed(settings.quiet_seconds)
        handshakes_until = began + (HANDSHAKE_SECONDS if self._certificate else 0)
        while server is not None and loop.time() - began < settings.drain_seconds:
            is_empty = all(connection.transport is None for connection in server.connections)
            if is_empty and loop.time() >= handshakes_until:
                break
            await asyncio.sleep(0.02)
            if (now := loop.time()) - began >= settings.quiet_seconds:
                _close_quiet(server, now, settings.quiet_seconds)
        await self._runner.cleanup()


def _of_tls(tls: ssl.SSLContext | None, settings: Settings) -> dict[str, Any]:
    """Whoever is slow to shake hands is as slow as one whose headers do not come."""
    return {"ssl": tls, "ssl_handshake_timeout": settings.header_seconds} if tls else {}


def _close_quiet(server: web.Server, now: float, seconds: float) -> None:
    for connection in server.connections:
        if isinstance(connection, Connection) and connection.is_quiet(now, seconds):
            connection.force_close()


def _listening_socket(settings: Settings, port: int, number: int) -> socket.socket:
    if number:
        return socket.socket(fileno=number)
    host = settings.host or settings.listen
    return socket.create_server(
        (host, port),
        family=socket.AF_INET6 if ":" in host else socket.AF_INET,
        backlog=BACKLOG,
        reuse_port=settings.reuse_port,
        dualstack_ipv6=host == "::" and socket.has_dualstack_ipv6(),
    )
