"""One request on its way through the gateway: its ids, its preferences, who calls, and what it says."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable
from random import Random
from time import monotonic
from typing import Any, NamedTuple, TypeVar

from aiohttp import web
from aiohttp.hdrs import ACCEPT_LANGUAGE, AUTHORIZATION
from multidict import istr

from services.gateway.http.problems import Turned
from services.gateway.http.proxies import Headers, Peer
from shared.bus.ids import keyed_id, uuid7
from shared.bus.requests import Caller, Unavailable
from shared.contracts.base import ANONYMOUS, FieldError, Message, Principal

T = TypeVar("T")
UNMATCHED = "unmatched"
DEFAULT_SECONDS, MOST_SECONDS = 10, 30
LEAST_SECONDS = 0.005

REQUEST_ID, TRACEPARENT = istr("X-Request-Id"), istr("traceparent")
PREFER, IDEMPOTENCY_KEY, API_KEY = istr("Prefer"), istr("Idempotency-Key"), istr("X-API-Key")
_random = Random()  # ids of requests name them and protect nothing
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}", re.ASCII)
_TRACEPARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})")
_KEY = re.compile(r"[\x21-\x7e]{1,255}", re.ASCII)


class Preferences(NamedTuple):
    """What `Prefer` (RFC 7240) asks for; what is not understood is ignored, as it demands."""

    seconds: int = DEFAULT_SECONDS
    queued: bool = False
    strict: bool = False
    applied: str = ""


class Incoming:
    """A request and what was learnt of it; `path`, `query` and `form` are filled before a route sees it.

    `raw_query` is the query string as it came, `peer` the other end of the connection, `client` the address
    the request came from, `secure` whether it was encrypted on its way from there; `rate` is what the headers
    RateLimit and RateLimit-Policy say when a limit applies. From `since` (monotonic) on its sender waits; 0:
    from now, nothing was waited for.
    """

    __slots__ = (
        "body",
        "client",
        "form",
        "headers",
        "idempotency_key",
        "method",
        "path",
        "peer",
        "prefer",
        "principal",
        "query",
        "rate",
        "raw_query",
        "request_id",
        "secure",
        "since",
        "template",
        "trace_id",
        "traceparent",
    )

    def __init__(self, method: str, headers: Headers, raw_query: str, peer: Peer) -> None:
        chance = f"{_random.getrandbits(192):048x}"
        given = headers.get(TRACEPARENT)
        known = _TRACEPARENT.fullmatch(given) if given else None
        self.trace_id = known[1] if known else chance[:32]
        self.traceparent = f"00-{self.trace_id}-{chance[32:]}-{known[2] if known else '01'}"
        own = headers.get(REQUEST_ID)
        self.request_id = own if own and _REQUEST_ID.fullmatch(own) else self.trace_id
        self.method = method
        self.headers = headers
        self.raw_query = raw_query
        self.peer = peer
        self.client = peer.client(headers) if peer.proxies else peer.address
        self.secure = peer.is_secure(headers) if peer.proxies else peer.is_tls
        self.principal: Principal = ANONYMOUS
        self.prefer = _NONE
        self.idempotency_key = ""
        self.template = UNMATCHED
        self.body = b""
        self.rate: tuple[str, str] | None = None
        self.since = 0.0
        self.path: Any = None
        self.query: Any = None
        self.form: Any = None

    @property
    def by_cookie(self) -> bool:
        """Whether a browser said who calls without being told to: any page can make it send this."""
        is_user = self.principal.kind == "user"
        return is_user and AUTHORIZATION not in self.headers and API_KEY not in self.headers

    def read_headers(self) -> None:
        """Take `Prefer` and `Idempotency-Key`; raises Turned (400) for a key that is none."""
        headers = self.headers
        if PREFER in headers:
            self.prefer = preferences(",".join(headers.getall(PREFER)))
        key = headers.get(IDEMPOTENCY_KEY)
        if key is not None and self.method not in ("GET", "HEAD"):
            if not _KEY.fullmatch(key):
                raise bad_header("Idempotency-Key", "has 1 to 255 visible ASCII characters")
            self.idempotency_key = key

    @property
    def seconds_left(self) -> float:
        """How long its sender still waits."""
        seconds = float(self.prefer.seconds)
        return self.since + seconds - monotonic() if self.since else seconds

    async def in_time(self, learning: Awaitable[T]) -> T:
        """Await what must be known first; raises Unavailable as soon as its sender waits no more."""
        try:
            async with asyncio.timeout(self.seconds_left) as limit:
                return await learning
        except TimeoutError:
            if not limit.expired():
                raise
            raise Unavailable("Nobody could tell in time who is calling.") from None

    async def at_leisure(self, arriving: Awaitable[T]) -> T:
        """Await what the sender itself takes time for: that is not waiting."""
        began = monotonic()
        try:
            return await arriving
        finally:
            self.since += monotonic() - began

    def caller(self, message: Message) -> Caller:
        """The header of the call that carries this message; raises Unavailable when nobody waits any more."""
        key = self.idempotency_key
        seconds = self.seconds_left
        if seconds < LEAST_SECONDS:
            raise Unavailable("No time was left to ask.")
        return Caller(
            id=keyed_id(self.principal, message.topic, key) if key else uuid7(),
            request_id=self.request_id,
            principal=self.principal,
            seconds=seconds,
            traceparent=self.traceparent,
            client=self.client,
            locale=_locale(self.headers.get(ACCEPT_LANGUAGE, "")),
        )


def _locale(text: str) -> str:
    return text[:64] if text.isascii() else ""


INCOMING = web.RequestKey("incoming", Incoming)
_NONE = Preferences()


def preferences(text: str) -> Preferences:
    """Read a `Prefer` header; `wait` is brought into 1 to 30 seconds."""
    seconds, queued, strict = DEFAULT_SECONDS, False, False
    applied = []
    for part in text.split(","):
        name, _, value = part.partition(";")[0].strip().lower().partition("=")
        value = value.strip().strip('"')
        match name.strip():
            case "wait" if value.isascii() and value.isdigit():
                seconds = min(max(int(value[:6]), 1), MOST_SECONDS)
                applied.append(f"wait={seconds}")
            case "respond-async":
                queued = True
            case "handling" if value in ("strict", "lenient"):
                strict = value == "strict"
                applied.append(f"handling={value}")
    return Preferences(seconds, queued, strict, ", ".join(applied))


def bad_header(name: str, message: str) -> Turned:
    """A header whose value cannot be used."""
    return Turned(
        "bad_header", f"{name} {message}.", errors=[FieldError(where="header", path=name, message=message)]
    )
