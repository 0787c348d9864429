"""One connection of a client: limits on slow and silent ones that aiohttp does not have."""

from __future__ import annotations

import asyncio
import os
import select
import socket
import struct
from contextlib import suppress
from http import HTTPStatus
from typing import Any, cast

from aiohttp import ClientConnectionResetError, web
from aiohttp.http import HttpVersion11
from aiohttp.http_exceptions import BadHttpMessage, LineTooLong
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestHandler

from services.gateway.http.answers import PROBLEM, problem, to_json
from services.gateway.http.body import SlowBody
from services.gateway.http.problems import PROBLEMS, problem_body
from services.gateway.http.proxies import Networks, Peer, peer_of
from services.gateway.http.short_way import Exchange, ShortWay
from services.gateway.settings import Settings
from shared.bus.ids import uuid7

# aiohttp raises the same error for both lines; different limits tell which one was too long.
LINE_BYTES, FIELD_BYTES = 8192, 8190
_BYTES_ACKED = struct.Struct("@120xQ")  # tcpi_bytes_acked of Linux' tcp_info, since 4.1


class Connection(RequestHandler):
    """aiohttp's connection that also knows when it last heard something and what is missing."""

    __slots__ = (
        "_arriving",
        "_began_at",
        "_exchange",
        "_going_on",
        "_heard_at",
        "_limits",
        "_opened_at",
        "_out",
        "_partial_bytes",
        "_partial_since",
        "_resting",
        "_short_way",
        "_taken",
        "_trusted",
        "is_beside_tls",
        "peer",
    )

    def __init__(
        self,
        manager: web.Server,
        limits: Settings,
        short_way: ShortWay,
        trusted: Networks,
        *,
        is_beside_tls: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(manager, **options)
        self.peer = Peer()
        self.is_beside_tls = is_beside_tls
        self._trusted = trusted
        self._limits = limits
        self._short_way = short_way
        self._exchange: Exchange | None = None
        self._going_on = False
        self._resting = False
        self._opened_at = self._heard_at = self._loop.time()
        self._began_at = 0.0
        self._partial_since = 0.0
        self._partial_bytes = 0
        self._arriving: StreamReader | None = None
        self._out: asyncio.Transport | None = None
        self._taken: tuple[float, int] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Look who is there."""
        # Kept also when aiohttp has closed it and an answer is on its way; uvloop's is no asyncio.Transport.
        self._out = cast("asyncio.Transport", transport)
        address = transport.get_extra_info("peername")
        is_tls = transport.get_extra_info("sslcontext") is not None
        self.peer = peer_of(address[0] if address else "", is_tls, self._trusted)
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Feed the parser, note what kind of bytes these were, and let the next request go its way."""
        now = self._heard_at = self._loop.time()
        seen, arriving = self._request_count, self._arriving
        is_body = arriving is not None and not arriving.is_eof()
        waiter, self._waiter = self._waiter, None  # aiohttp's task is not to wake before we have looked
        try:
            super().data_received(data)
        finally:
            self._waiter = waiter
        self._note(data, seen, is_body, now)
        if self._messages:
            self._go_on()

    def _note(self, data: bytes, seen: int, is_body: bool, now: float) -> None:
        if self._request_count != seen:
            if self._messages:
                self._arriving = self._messages[-1][1]
                self._check_versions()
            self._began_at = now
            self._partial_since = self._partial_bytes = 0
            if len(data) > self._limits.header_bytes:
                self._check_header_size()
        elif data and not is_body and not self._upgraded:
            self._partial_since = self._partial_since or now
            self._partial_bytes += len(data)
            if self._partial_bytes > self._limits.header_bytes:
                self.turn_away("headers_too_large")

    def _go_on(self) -> None:
        """The requests that are here, one at a time and in order; what is answered at once is over here."""
        waiter = self._waiter
        if self._going_on or waiter is None or waiter.done():
            return
        self._going_on = True
        while self._messages and self._exchange is None and not (self._force_close or self._resting):
            if not self._take_short():
                waiter.set_result(None)  # aiohttp's task takes it, and what follows
                break
            if self._buffer_paused and len(self._messages) <= self._msg_queue_resume_size:
                self._resume_reading_if_drained()
        self._going_on = False

    def _take_short(self) -> bool:
        if self._close or self.writing_paused:
            return False
        message, payload = self._messages[0]
        exchange = self._short_way.exchange(self, message, payload)
        if exchange is None:
            return False
        assert self._parser is not None
        assert self._manager is not None
        self._messages.popleft()
        self._parser.message_consumed()
        self._manager.requests_count += 1
        self._exchange = exchange
        exchange.start()
        return True

    def rest(self, seconds: float) -> None:
        """Read no more and go on with nothing for so long."""
        if self.transport is not None and not self._resting:
            self._resting = True
            self.transport.pause_reading()
            self._loop.call_later(seconds, self._rested)

    def _rested(self) -> None:
        self._resting = False
        if self.transport is None:
            return
        if not (self._reading_paused or self._buffer_paused):
            self.transport.resume_reading()
        if self._messages:
            self._go_on()

    def answer(self, data: bytes, *, close: bool) -> None:
        """The answer of the exchange that runs here; the next request may follow."""
        self._exchange = None
        if self.transport is None:
            return
        self.transport.write(data)
        if close or self._close:
            self.force_close()
            return
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        if self._keepalive_handle is None:
            self._keepalive_handle = self._loop.call_at(
                self._next_keepalive_close_time, self._process_keepalive
            )
        if self._messages:
            self._go_on()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Nobody waits for the exchange that runs here any more."""
        exchange, self._exchange = self._exchange, None
        self._out = None
        super().connection_lost(exc)
        if exchange is not None:
            exchange.gone()

    @property
    def _is_busy(self) -> bool:
        """Whether a request is here that has not been answered, started or not."""
        if self._messages or self._exchange is not None:
            return True
        waiter = self._waiter
        return self._request_in_progress or waiter is None or waiter.done()

    def eof_received(self) -> bool | None:  # type: ignore[override]  # as asyncio.Protocol has it
        """A client that has sent its whole request and closed its side still gets its answer."""
        if self.peer.is_tls:
            return None  # uvloop ends both directions of TLS at once, whatever is said here
        if self._exchange is not None:
            self._close = True
            return True
        is_whole = self._arriving is None or self._arriving.is_eof()
        if is_whole and self._is_busy and self._request_count:
            self.close()
            return True
        return None

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Only when paused: aiohttp asks after every body, which costs two calls for nothing."""
        if self._reading_paused:
            super().resume_reading(resume_parser)

    async def _drain_helper(self) -> None:
        """aiohttp's error ends in a cycle with what waits here: a new one lets go of the answer at once."""
        with suppress(ConnectionError):
            await super()._drain_helper()
            return
        raise ClientConnectionResetError("Connection lost")

    def _process_keepalive(self) -> None:
        """aiohttp's timer for silence: a request that has begun is `check`'s, which answers it."""
        if self._partial_since:
            self._keepalive_handle = None
        elif self._exchange is not None:
            self._keepalive_handle = self._loop.call_later(self._keepalive_timeout, self._process_keepalive)
        else:
            super()._process_keepalive()

    def _check_versions(self) -> None:
        """What has no version, or that of HTTP/2, parses too, and would be answered as if it were."""
        for message, _ in self._messages:
            if getattr(message, "version", HttpVersion11)[0] != 1:
                self.turn_away("bad_request")
                return

    def _check_header_size(self) -> None:
        """A header that came in one piece is only seen when it is complete."""
        for message, _ in self._messages:
            fields = getattr(message, "raw_headers", ())
            if sum(len(name) + len(value) + 4 for name, value in fields) > self._limits.header_bytes:
                self.turn_away("headers_too_large")
                return

    def turn_away(self, code: str) -> None:
        """Answer a request that never became one, and close."""
        if self.transport is not None and not self._request_in_progress:
            self.transport.write(_raw_problem(code))
        self.force_close()

    def check(self, now: float) -> None:
        """Close what is overdue at `now`; called once a second (aiohttp itself closes idle ones)."""
        self._check_reader(now)
        if self.transport is None or self._upgraded or self._payload_parser is not None:
            return
        limits = self._limits
        if self._is_busy and self._request_count:
            self._check_body(now)
        elif self._partial_since:
            if now - self._partial_since > limits.header_seconds:
                self.turn_away("slow_request")
        elif self._request_count == 0 and now - self._opened_at > limits.header_seconds:
            self.force_close()

    def _check_body(self, now: float) -> None:
        body, limits = self._arriving, self._limits
        if body is None or body.is_eof() or self._reading_paused or self._buffer_paused:
            return
        allowed = limits.body_seconds + body.total_bytes / limits.body_bytes_per_second
        if now - self._heard_at > limits.body_seconds or now - self._began_at > allowed:
            body.set_exception(SlowBody())

    def _check_reader(self, now: float) -> None:
        """A client that hardly reads its answer holds memory here, and perhaps a stream in a service."""
        transport = self._out
        if transport is None or not transport.get_write_buffer_size():
            self._taken = None
            return
        taken = _taken(transport)
        since, before = self._taken = self._taken or (now, taken)
        if now - since >= self._limits.body_seconds:
            if taken - before < (now - since) * self._limits.answer_bytes_per_second:
                _reset(transport)
            self._taken = (now, taken)

    def is_quiet(self, now: float, seconds: float) -> bool:
        """Whether nothing runs here, nothing was heard and nothing waits in the socket."""
        if self._is_busy or self._partial_since or self._upgraded:
            return False
        ended_at = self._next_keepalive_close_time - self._keepalive_timeout
        if now - max(self._heard_at, ended_at) < seconds or self.transport is None:
            return False
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
        return not poll.poll(0)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What aiohttp found wrong before there was a request, or after our own net failed."""
        if request.writer.output_size > 0 or isinstance(exc, ConnectionError):
            raise ConnectionError("the client is gone, or its answer has begun and cannot become another one")
        code = _code_of(exc) if status == 400 else "internal"
        if code == "internal":
            self.log_exception("the gateway failed", exc_info=exc)
        answer = problem(code, PROBLEMS[code].status, "", uuid7().hex)
        answer.close = True
        return answer.response()


def cut(transport: asyncio.Transport | None) -> None:
    """Reset a connection: for HTTP/1.0 an orderly close would be the end of the body."""
    if transport is not None and not transport.is_closing():
        _reset(transport)


def _taken(transport: asyncio.Transport) -> int:
    """How many bytes the other end has confirmed: what the kernel keeps for it has not been taken."""
    if not hasattr(socket, "TCP_INFO"):
        return -transport.get_write_buffer_size()
    info = transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 128)
    acked: int = _BYTES_ACKED.unpack_from(info)[0]
    return acked


def _reset(transport: asyncio.Transport) -> None:
    with socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())) as same:
        same.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def _code_of(error: BaseException | None) -> str:
    if isinstance(error, LineTooLong):
        return "uri_too_long" if error.args[1] == LINE_BYTES else "headers_too_large"
    if isinstance(error, BadHttpMessage) and "Too many headers" in error.message:
        return "headers_too_large"
    return "bad_request"


def _raw_problem(code: str) -> bytes:
    status = PROBLEMS[code].status
    body = to_json(problem_body(code, status, "", uuid7().hex))
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: {PROBLEM}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body
