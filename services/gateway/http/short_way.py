"""The short way of a request: what is whole, plain and known is asked and answered without a task."""

from __future__ import annotations

import time
from random import random
from typing import TYPE_CHECKING, Any

from aiohttp import web
from aiohttp.hdrs import CONTENT_ENCODING, CONTENT_TYPE, EXPECT
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader

from services.gateway.http.answers import Answer
from services.gateway.http.front import GONE, Front
from services.gateway.http.gateway import Gateway, ending_of
from services.gateway.http.incoming import Incoming
from services.gateway.http.plain import is_for_devices
from services.gateway.http.proxies import Headers
from shared.bus.requests import Begun, Caller, Overloaded
from shared.contracts.base import ANONYMOUS
from shared.errors import Refusal

if TYPE_CHECKING:
    from services.gateway.http.connection import Connection
    from services.gateway.http.endpoint import Endpoint

MOST_PATHS = 8_192
LONGEST_PATH = 256  # a name may have more, and is looked up each time
# Refusing takes time too: whoever goes on at once would take it from those who are answered.
REST_SECONDS = 0.5


class KnownPaths:
    """Paths the router has found and validated, the last few thousand of them."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], tuple[Endpoint, Any]] = {}

    def add(self, method: str, target: str, endpoint: Endpoint, path: Any) -> None:
        """Remember what serves a request target and the structure of its path."""
        path_only = target.partition("?")[0]
        if len(path_only) > LONGEST_PATH:
            return
        if len(self._found) >= MOST_PATHS:
            del self._found[next(iter(self._found))]
        self._found[method, path_only] = endpoint, path

    def get(self, method: str, path: str) -> tuple[Endpoint, Any] | None:
        """What serves it; None when the router has to look."""
        return self._found.get((method, path))


class ShortWay:
    """Finds requests that need nothing but one call to a service.

    aiohttp makes two tasks, a request and a response for each; of two thirds of the time of a small request
    that is what there is to save. Everything unusual goes aiohttp's way: a body that is not here yet or
    is packed, a caller not known yet, a path seen for the first time, streams, pages, HTTP/1.0.
    """

    def __init__(self, gateway: Gateway, front: Front, known: KnownPaths) -> None:
        self.gateway = gateway
        self.front = front
        self._known = known

    def exchange(self, connection: Connection, message: Any, payload: StreamReader) -> Exchange | None:
        """The request and its answer to be, not started; None when it cannot go this way."""
        if not isinstance(message, RawRequestMessage) or not _is_plain(message, payload):
            return None
        path, _, query = message.path.partition("?")
        known = self._known.get(message.method, path)
        if known is None or self.gateway.stopping.is_set():
            return None
        endpoint = known[0]
        headers = message.headers
        if connection.is_beside_tls and not is_for_devices(path, headers):
            return None
        if not _has_plain_body(endpoint, headers, payload):
            return None
        try:
            principal = self.gateway.callers.at_once(headers, connection.peer)
        except Refusal:
            return None
        if principal is None:
            return None
        incoming = Incoming(message.method, headers, query, connection.peer)
        incoming.path = known[1]
        incoming.principal = principal
        rates = self.gateway.rates
        is_counted = principal is ANONYMOUS or rates.counts_callers or endpoint.rate
        if is_counted and not rates.at_once(incoming, endpoint.rate):
            return None
        if endpoint.row.accepts:
            incoming.body = payload.read_nowait()
        return Exchange(self, connection, endpoint, incoming)

    def let_rest(self, connection: Connection) -> None:
        """Read no more of a client just refused, for a moment; others behind a proxy are not to suffer."""
        if not connection.peer.is_proxy:
            connection.rest(REST_SECONDS * (0.5 + random()))  # not all again at once


class Exchange:
    """One request on the short way, from its start to its answer."""

    __slots__ = (
        "_began",
        "_call",
        "_caller",
        "_connection",
        "_endpoint",
        "_incoming",
        "_is_over",
        "_topic",
        "_way",
    )

    def __init__(self, way: ShortWay, connection: Connection, endpoint: Endpoint, incoming: Incoming) -> None:
        self._way = way
        self._connection = connection
        self._endpoint = endpoint
        self._incoming = incoming
        self._began = time.perf_counter()
        self._topic = ""
        self._call: Begun | None = None
        self._caller: Caller | None = None
        self._is_over = False

    def start(self) -> None:
        """Validate and ask; a mistake is answered before this returns."""
        endpoint, incoming, gateway = self._endpoint, self._incoming, self._way.gateway
        gateway.meter.in_flight += 1
        try:
            endpoint.enter(incoming)
            endpoint.admit(incoming)
            endpoint.read(incoming, [])
            message = endpoint.message(incoming)
            caller = incoming.caller(message)
            self._topic = message.topic
            if endpoint.is_queued(incoming):
                self._caller = caller
                call = gateway.requester.begin_submit(message, caller, self._ended)
            else:
                call = gateway.requester.begin(message, caller, self._ended)
            self._call = None if self._is_over else call
        except Exception as error:
            self._fail(error)

    def _ended(self, reply: Any, error: BaseException | None) -> None:
        if error is not None:
            self._fail(error)
            return
        incoming, endpoint = self._incoming, self._endpoint
        try:
            if self._caller is None:
                answer = endpoint.answer(reply, incoming)
                outcome = "ok"
            else:
                answer = endpoint.accepted(self._topic, self._caller, incoming)
                outcome = "accepted"
            data = self._wire(answer)
        except Exception as wrong:
            self._fail(wrong)
            return
        self._way.gateway.meter.call(self._topic, outcome)
        self._send(answer, data)

    def _fail(self, error: BaseException) -> None:
        if self._topic:
            self._way.gateway.meter.call(self._topic, ending_of(error))
        answer = self._way.front.failure(error, self._incoming)
        if isinstance(error, Overloaded):
            self._way.let_rest(self._connection)
        self._send(answer, self._wire(answer))

    def _wire(self, answer: Answer) -> bytes:
        answer.close = answer.close or self._way.gateway.stopping.is_set()
        return self._way.front.wire(self._incoming, answer)

    def _send(self, answer: Answer, data: bytes) -> None:
        self._is_over = True
        self._call = None  # it knows us, and our body would stay until somebody looks for cycles
        self._count(answer.status)
        self._connection.answer(data, close=answer.close)

    def gone(self) -> None:
        """The client has closed the connection."""
        call, self._call = self._call, None
        if call is not None:
            call.cancel()
        if self._topic:
            self._way.gateway.meter.call(self._topic, "gone")
        self._count(GONE)

    def _count(self, status: int) -> None:
        meter, incoming = self._way.gateway.meter, self._incoming
        meter.in_flight -= 1
        meter.request(incoming.template, incoming.method, status, time.perf_counter() - self._began)


def _is_plain(message: RawRequestMessage, payload: StreamReader) -> bool:
    """Whether it is all here, and asks for nothing beyond an answer."""
    is_simple = not (message.should_close or message.upgrade or EXPECT in message.headers)
    return is_simple and payload.is_eof() and payload.exception() is None and "#" not in message.path


def _has_plain_body(endpoint: Endpoint, headers: Headers, payload: StreamReader) -> bool:
    """Whether the body is one this row reads, not packed and not too large, or there is none."""
    if not endpoint.row.accepts:
        return not payload.total_bytes
    is_known = headers.get(CONTENT_TYPE) in endpoint.row.accepts and CONTENT_ENCODING not in headers
    return is_known and payload.total_bytes <= endpoint.limit


SHORT_WAY = web.AppKey("short_way", ShortWay)
