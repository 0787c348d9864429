"""Around every request: ids and headers, failures as problems, counting, CORS."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable
from http import HTTPStatus
from typing import Any

import structlog
from aiohttp import web
from aiohttp.hdrs import (
    ACCEPT,
    ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS,
    CACHE_CONTROL,
    EXPECT,
    ORIGIN,
    SERVER,
    VARY,
)
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http_exceptions import HttpProcessingError
from multidict import istr

from services.gateway.http.answers import Answer, problem
from services.gateway.http.body import SlowBody
from services.gateway.http.gateway import Gateway
from services.gateway.http.incoming import INCOMING, REQUEST_ID, TRACEPARENT, Incoming
from services.gateway.http.plain import is_for_devices, sent_on
from services.gateway.http.problems import PROBLEMS, Turned, code_of
from services.gateway.http.proxies import Peer
from shared import context
from shared.bus.requests import CallFailed, OutcomeUnknown
from shared.errors import Refusal

Handle = Callable[[Any], Awaitable[web.StreamResponse]]
Pairs = list[tuple[str, str]]
log = structlog.get_logger()
GONE = 499
CONTENT_TYPE_OPTIONS = istr("X-Content-Type-Options")
STRICT_TRANSPORT_SECURITY = istr("Strict-Transport-Security")
RATE_LIMIT, RATE_LIMIT_POLICY = istr("RateLimit"), istr("RateLimit-Policy")
NO_STORE = "no-store"
CONTINUE = "100-continue"
_NO_STORE_LINE = f"{CACHE_CONTROL}: {NO_STORE}\r\n"
_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}
_EXPOSED = (
    "Deprecation, ETag, Location, Preference-Applied, RateLimit, RateLimit-Policy, Retry-After, Sunset, "
    "X-Request-Id, traceparent"
)
_MAY_SEND = (
    "Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, Prefer, X-API-Key, X-Request-Id, "
    "traceparent"
)
_FOR_PROGRAMS = ("/v1/", "/docs/", "/static/")
_DETAILS = {
    "not_found": "There is nothing at this path; /openapi.json lists the paths.",
    "bad_request": "The body is not framed as its headers say.",
}


class Front:
    """What every request passes on its way in and out."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._stopping = gateway.stopping
        self._meter = gateway.meter
        self._origins = frozenset(gateway.settings.cors_origins.split())
        self._settings = gateway.settings
        self._without_origin = [_lines(self._always(None, is_secure)) for is_secure in (False, True)]

    def around(self, handle: Handle) -> Handle:
        """The application's handler with everything of this class around it."""
        meter = self._meter

        async def pass_through(request: web.Request) -> web.StreamResponse:
            began = time.perf_counter()
            query = request.rel_url.raw_query_string
            incoming = Incoming(request.method, request.headers, query, _peer_at(request))
            incoming.since = time.monotonic()
            request[INCOMING] = incoming
            meter.in_flight += 1
            status = GONE
            try:
                response = await self._answer(handle, request, incoming)
                status = response.status
                if not response.prepared:
                    self.dress(incoming, response)
                return response
            finally:
                meter.in_flight -= 1
                meter.request(incoming.template, request.method, status, time.perf_counter() - began)

        return pass_through

    async def _answer(self, handle: Handle, request: web.Request, incoming: Incoming) -> web.StreamResponse:
        try:
            if not incoming.secure and _leads_on(request):
                return sent_on(incoming, request.raw_path, self._settings).response()
            if request.headers.get(EXPECT, CONTINUE).lower() != CONTINUE:
                # aiohttp would repeat what it holds, which may be no text.
                return _problem("expectation_failed", incoming).response()
            return await handle(request)
        except ConnectionError:
            raise
        except web.HTTPException as error:
            return await self._nowhere(error, request, incoming)
        except Exception as error:
            return self.failure(error, incoming).response()

    def failure(self, error: BaseException, incoming: Incoming) -> Answer:
        """What a request hears that ended so."""
        if isinstance(error, Refusal):
            return _refused(error, incoming)
        if isinstance(error, CallFailed):
            return _failed(error, incoming)
        if isinstance(error, SlowBody | HttpProcessingError | web.RequestPayloadError):
            answer = _problem("slow_request" if isinstance(error, SlowBody) else "bad_request", incoming)
            answer.close = True
            return answer
        with context.bind(request_id=incoming.request_id, traceparent=incoming.traceparent):
            log.error("gateway_failed", exc_info=error)
        return _problem("internal", incoming)

    async def _nowhere(
        self, error: web.HTTPException, request: web.Request, incoming: Incoming
    ) -> web.StreamResponse:
        answer = self._no_route(error, incoming)
        page = self._gateway.no_route
        if page is None or not _is_looked_at(request) or answer.status not in (404, 405):
            return answer.response()
        code = "not_found" if answer.status == 404 else "method_not_allowed"
        response = await page(request, incoming, self._gateway, code)
        response.headers.update(answer.headers)
        return response

    def _no_route(self, error: web.HTTPException, incoming: Incoming) -> Answer:
        if not isinstance(error, web.HTTPMethodNotAllowed):
            codes = {404: "not_found", 417: "expectation_failed"}
            return _problem(codes.get(error.status, "bad_request"), incoming)
        allowed = ", ".join(sorted({*error.allowed_methods, "OPTIONS"}))
        if incoming.method != "OPTIONS":
            answer = _problem("method_not_allowed", incoming, f"This path knows {allowed}.")
            answer.headers["Allow"] = allowed
            return answer
        headers = {
            "Access-Control-Allow-Methods": allowed,
            "Access-Control-Allow-Headers": _MAY_SEND,
            "Access-Control-Max-Age": "7200",
            "Allow": allowed,
        }
        return Answer(204, headers=headers)

    def dress(self, incoming: Incoming, response: web.StreamResponse) -> None:
        """The headers of every answer."""
        headers = response.headers
        headers[REQUEST_ID] = incoming.request_id
        headers[TRACEPARENT] = incoming.traceparent
        for name, value in self._always(incoming.headers.get(ORIGIN), incoming.secure):
            headers.add(name, value)
        if incoming.rate is not None:
            headers[RATE_LIMIT], headers[RATE_LIMIT_POLICY] = incoming.rate
        if CACHE_CONTROL not in headers:
            headers[CACHE_CONTROL] = NO_STORE
        if self._stopping.is_set():
            response.force_close()

    def wire(self, incoming: Incoming, answer: Answer) -> bytes:
        """A whole answer as it goes over the wire, with the same headers; one that is to close says so."""
        status, body = answer.status, answer.body
        head = (
            f"{_STATUS_LINES[status]}X-Request-Id: {incoming.request_id}\r\n"
            f"traceparent: {incoming.traceparent}\r\n{self._always_lines(incoming)}"
            f"Date: {rfc822_formatted_time()}\r\n"
        )
        if body:
            head += f"Content-Type: {answer.content_type}\r\n"
        if status != 204:
            head += f"Content-Length: {len(body)}\r\n"
        if incoming.rate is not None:
            head += f"RateLimit: {incoming.rate[0]}\r\nRateLimit-Policy: {incoming.rate[1]}\r\n"
        if answer.headers:
            head += _lines(answer.headers.items())
            if CACHE_CONTROL not in answer.headers:
                head += _NO_STORE_LINE
        else:
            head += _NO_STORE_LINE
        if answer.close:
            head += "Connection: close\r\n"
        return f"{head}\r\n".encode() + body

    def _always_lines(self, incoming: Incoming) -> str:
        origin = incoming.headers.get(ORIGIN)
        if origin is None:
            return self._without_origin[incoming.secure]
        return _lines(self._always(origin, incoming.secure))

    def _always(self, origin: str | None, is_secure: bool) -> Pairs:
        """What every answer says; pages of the allowed origins may read it, never with cookies."""
        pairs: Pairs = [(CONTENT_TYPE_OPTIONS, "nosniff"), (SERVER, "posthouse")]
        if is_secure and self._settings.hsts_seconds:
            pairs.append((STRICT_TRANSPORT_SECURITY, f"max-age={self._settings.hsts_seconds}"))
        if "*" in self._origins:
            pairs.append((ACCESS_CONTROL_ALLOW_ORIGIN, "*"))
        else:
            pairs.append((VARY, ORIGIN))
            if origin is None or origin not in self._origins:
                return pairs
            pairs.append((ACCESS_CONTROL_ALLOW_ORIGIN, origin))
        if origin is not None:
            pairs.append((ACCESS_CONTROL_EXPOSE_HEADERS, _EXPOSED))
        return pairs


FRONT = web.AppKey("front", Front)


def _is_looked_at(request: web.Request) -> bool:
    """Whether a person in a browser went there, and not a program of theirs."""
    if request.method != "GET" or "text/html" not in request.headers.get(ACCEPT, ""):
        return False
    return not request.path.startswith(_FOR_PROGRAMS)


def _leads_on(request: web.Request) -> bool:
    """Whether this came over plain HTTP beside HTTPS, and from no device."""
    is_beside: bool = request.protocol.is_beside_tls  # type: ignore[attr-defined]  # a Connection
    return is_beside and not is_for_devices(request.raw_path.partition("?")[0], request.headers)


def _peer_at(request: web.Request) -> Peer:
    peer: Peer = request.protocol.peer  # type: ignore[attr-defined]  # a Connection
    return peer


def _lines(headers: Iterable[tuple[str, str]]) -> str:
    """Header lines; a line break in a value would be another header, so it is a bug worth an exception."""
    lines = [f"{name}: {value}" for name, value in headers]
    if any("\r" in line or "\n" in line for line in lines):
        raise ValueError("a header with a line break")
    return "".join(f"{line}\r\n" for line in lines)


def _problem(code: str, incoming: Incoming, detail: str = "") -> Answer:
    return problem(code, PROBLEMS[code].status, detail or _DETAILS.get(code, ""), incoming.request_id)


def _refused(refusal: Refusal, incoming: Incoming) -> Answer:
    headers = dict(refusal.headers) if isinstance(refusal, Turned) else {}
    code = code_of(refusal)
    if seconds := getattr(refusal, "retry_after", int(code == "still_running")):
        headers["Retry-After"] = str(seconds)
    if refusal.status == 401:
        headers.setdefault("WWW-Authenticate", 'Bearer realm="posthouse"')
    return problem(code, refusal.status, refusal.detail, incoming.request_id, headers, errors=refusal.errors)


def _failed(failure: CallFailed, incoming: Incoming) -> Answer:
    headers: dict[str, str] = {}
    more: dict[str, Any] = {}
    detail = ""
    if seconds := getattr(failure, "retry_after", 0):
        headers["Retry-After"] = str(seconds)
        detail = failure.detail
    if isinstance(failure, OutcomeUnknown):
        more["outcome"] = "unknown"
        if incoming.idempotency_key:
            more["idempotency_key"] = incoming.idempotency_key
            detail = "No answer came in time. Repeat with the same Idempotency-Key to learn the outcome."
        else:
            detail = "No answer came in time, and no Idempotency-Key was sent: a repetition may do it twice."
    return problem(failure.code, failure.status, detail, incoming.request_id, headers, **more)
