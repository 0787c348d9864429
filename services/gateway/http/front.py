"""Around every request: ids and headers, failures as problems, counting, CORS."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from aiohttp import web
from aiohttp.hdrs import ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, ORIGIN, SERVER
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDict, istr

from services.gateway.http.answers import problem
from services.gateway.http.connection import SlowBody
from services.gateway.http.gateway import Gateway
from services.gateway.http.incoming import INCOMING, REQUEST_ID, TRACEPARENT, Incoming
from services.gateway.http.problems import PROBLEMS, Turned, code_of
from services.gateway.http.proxies import client_of, networks
from shared import context
from shared.bus.requests import CallFailed, OutcomeUnknown
from shared.errors import Refusal

Handle = Callable[[Any], Awaitable[web.StreamResponse]]
log = structlog.get_logger()
GONE = 499
CONTENT_TYPE_OPTIONS = istr("X-Content-Type-Options")
_EXPOSED = (
    "Deprecation, ETag, Location, Preference-Applied, RateLimit, RateLimit-Policy, Retry-After, Sunset, "
    "X-Request-Id, traceparent"
)
_MAY_SEND = (
    "Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, Prefer, X-API-Key, X-Request-Id, "
    "traceparent"
)
_DETAILS = {
    "not_found": "There is nothing at this path; /openapi.json lists the paths.",
    "bad_request": "The body is not framed as its headers say.",
}


class Front:
    """What every request passes on its way in and out."""

    def __init__(self, gateway: Gateway) -> None:
        self._stopping = gateway.stopping
        self._meter = gateway.meter
        self._proxies = networks(gateway.settings.trusted_proxies)
        self._origins = frozenset(gateway.settings.cors_origins.split())

    def around(self, handle: Handle) -> Handle:
        """The application's handler with everything of this class around it."""
        meter, proxies = self._meter, self._proxies

        async def pass_through(request: web.Request) -> web.StreamResponse:
            began = time.perf_counter()
            incoming = request[INCOMING] = Incoming(request, client_of(request, proxies))
            meter.in_flight += 1
            status = GONE
            try:
                response = await self._answer(handle, incoming)
                status = response.status
                if not response.prepared:
                    self.dress(incoming, response)
                return response
            finally:
                meter.in_flight -= 1
                meter.request(incoming.template, request.method, status, time.perf_counter() - began)

        return pass_through

    async def _answer(self, handle: Handle, incoming: Incoming) -> web.StreamResponse:
        request = incoming.request
        try:
            return await handle(request)
        except Refusal as refusal:
            return _refused(refusal, incoming)
        except CallFailed as failure:
            return _failed(failure, incoming)
        except web.HTTPException as error:
            return self._no_route(error, incoming)
        except (SlowBody, HttpProcessingError, web.RequestPayloadError) as error:
            code = "slow_request" if isinstance(error, SlowBody) else "bad_request"
            response = _problem(code, incoming)
            response.force_close()
            return response
        except ConnectionError:
            raise
        except Exception:
            with context.bind(request_id=incoming.request_id, traceparent=incoming.traceparent):
                log.exception("gateway_failed")
            return _problem("internal", incoming)

    def _no_route(self, error: web.HTTPException, incoming: Incoming) -> web.Response:
        if not isinstance(error, web.HTTPMethodNotAllowed):
            codes = {404: "not_found", 417: "expectation_failed"}
            return _problem(codes.get(error.status, "bad_request"), incoming)
        allowed = ", ".join(sorted({*error.allowed_methods, "OPTIONS"}))
        if incoming.request.method != "OPTIONS":
            response = _problem("method_not_allowed", incoming, f"This path knows {allowed}.")
        else:
            response = web.Response(status=204)
            response.headers["Access-Control-Allow-Methods"] = allowed
            response.headers["Access-Control-Allow-Headers"] = _MAY_SEND
            response.headers["Access-Control-Max-Age"] = "7200"
        response.headers["Allow"] = allowed
        return response

    def dress(self, incoming: Incoming, response: web.StreamResponse) -> None:
        """The headers of every answer."""
        headers = response.headers
        headers[REQUEST_ID] = incoming.request_id
        headers[TRACEPARENT] = incoming.traceparent
        headers[CONTENT_TYPE_OPTIONS] = "nosniff"
        headers[SERVER] = "posthouse"
        if CACHE_CONTROL not in headers:
            headers[CACHE_CONTROL] = "no-store"
        self._allow_origin(incoming.request.headers.get(ORIGIN), headers)
        if self._stopping.is_set():
            response.force_close()

    def _allow_origin(self, origin: str | None, headers: CIMultiDict[str]) -> None:
        """Pages of the allowed origins may read the answer; never with cookies."""
        if "*" in self._origins:
            headers[ACCESS_CONTROL_ALLOW_ORIGIN] = "*"
        else:
            headers.add("Vary", "Origin")
            if origin is None or origin not in self._origins:
                return
            headers[ACCESS_CONTROL_ALLOW_ORIGIN] = origin
        if origin is not None:
            headers["Access-Control-Expose-Headers"] = _EXPOSED


FRONT = web.AppKey("front", Front)


def _problem(code: str, incoming: Incoming, detail: str = "") -> web.Response:
    return problem(code, PROBLEMS[code].status, detail or _DETAILS.get(code, ""), incoming.request_id)


def _refused(refusal: Refusal, incoming: Incoming) -> web.Response:
    headers = dict(refusal.headers) if isinstance(refusal, Turned) else {}
    code = code_of(refusal)
    if seconds := getattr(refusal, "retry_after", int(code == "still_running")):
        headers["Retry-After"] = str(seconds)
    if refusal.status == 401:
        headers.setdefault("WWW-Authenticate", 'Bearer realm="posthouse"')
    return problem(code, refusal.status, refusal.detail, incoming.request_id, headers, errors=refusal.errors)


def _failed(failure: CallFailed, incoming: Incoming) -> web.Response:
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
