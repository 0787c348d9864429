"""Sessions of browsers: an opaque cookie, its tokens locked in Redis, and only our own pages act by it."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

import msgspec
import structlog
from aiohttp.hdrs import COOKIE, HOST, ORIGIN, X_FORWARDED_HOST
from multidict import istr
from redis.asyncio import Redis

from services.gateway.http.incoming import Incoming
from services.gateway.http.problems import Turned
from services.gateway.http.proxies import Headers, Peer
from services.gateway.tokens import GATEWAY, AccessTokens
from shared import cache
from shared.bus.ids import keyed_id, uuid7
from shared.bus.requests import Caller, CallFailed, Requester, Unavailable
from shared.contracts.auth import EndSession, RefreshSession, SessionOpened
from shared.contracts.base import ANONYMOUS, Principal
from shared.errors import Refusal
from shared.vault import SealBroken, Vault

log = structlog.get_logger()

LIFE_SECONDS = 7 * 86_400
KEPT_SECONDS = 60.0
KEPT_BROWSERS = 10_000
# An access token is renewed before it ends, so that auth may be away for a moment.
EARLY_SECONDS = 30.0
RENEW_SECONDS = 5.0
AGAIN_SECONDS = 0.05
MOST_RENEWALS = 50
SEC_FETCH_SITE = istr("Sec-Fetch-Site")
_COOKIES = {
    name: re.compile(rf"(?:^|;)\s*{name}=([A-Za-z0-9_-]{{43}})\s*(?=;|$)", re.ASCII)
    for name in ("posthouse", "__Host-posthouse")
}
_OVER = (401, 403, 404, 410)
_RUNNING = 409  # another process asks the same right now
_PORTS = {"http": ":80", "https": ":443"}
AWAY = "Nobody can tell right now who is signed in here."


class Record(msgspec.Struct, frozen=True, array_like=True):
    """What Redis holds of a browser; times are seconds since 1970.

    `principal` is good until `access_until`, and `refresh_token` gets the next one from `renew_at` on;
    all of it is over at `until`.
    """

    principal: Principal
    renew_at: float
    access_until: float
    refresh_token: str
    until: float


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Record).decode


class BrowserSessions:
    """Opens, knows and closes them; raises Unavailable while Redis cannot tell.

    Redis holds nothing that opens anything: the cookie only as its SHA-256, which names the record, and the
    record locked under the server key and that name. Who is known is kept for a minute at most.
    """

    def __init__(
        self,
        requester: Requester,
        vault: Vault,
        tokens: AccessTokens,
        redis: Redis | None = None,
        *,
        public_url: str = "",
        clock: Callable[[], float] = time.time,
        new_id: Callable[[int], str] = secrets.token_urlsafe,
    ) -> None:
        self._requester = requester
        self._vault = vault
        self._tokens = tokens
        self._store = redis
        self._public_origin = _origin(public_url)
        self._clock = clock
        self._new_id = new_id
        self._known: dict[str, tuple[Principal, float]] = {}
        self._drops = 0
        self._renewing: dict[str, asyncio.Task[Record | None]] = {}

    # -- what pages use

    async def open(self, incoming: Incoming, opened: SessionOpened) -> str:
        """Sign a browser in: the Set-Cookie value. The id is always new; what it had before is ended."""
        record = await self._record(opened, self._clock() + LIFE_SECONDS)
        new = self._new_id(32)
        try:
            await self._write(_name_of(new), record)
        except Unavailable:
            await self._end(record.principal, incoming)
            raise
        try:
            await self._drop(incoming, but=record.principal.via)
        except Unavailable as error:
            log.warning("old_browser_session_kept", reason=error.detail)
        return self._cookie(incoming, new, LIFE_SECONDS)

    async def close(self, incoming: Incoming) -> str:
        """Sign a browser out: the Set-Cookie value; raises Unavailable when it is still signed in."""
        await self._drop(incoming)
        return self._cookie(incoming, "", 0)

    def origin(self, incoming: Incoming) -> str:
        """Scheme, host and port as this client reaches us; empty when it does not say."""
        return self._public_origin or _own_origin(incoming)

    def same_origin(self, incoming: Incoming) -> bool:
        """Whether a page of ours sent this, as only a browser can tell (Fetch Metadata, else Origin).

        Forms of other sites can have any content type a form has, and any body: none of that counts.
        """
        site = incoming.headers.get(SEC_FETCH_SITE)
        if site is not None and site != "none":
            return site == "same-origin"
        own = self.origin(incoming)
        return own != "" and incoming.headers.get(ORIGIN) == own

    def demand_same_origin(self, incoming: Incoming) -> None:
        """Raises Turned (403) when another site's page may have sent this."""
        if not self.same_origin(incoming):
            raise Turned("cross_site")

    # -- who is calling

    def at_once(self, headers: Headers, peer: Peer) -> Principal | None:
        """Whom the cookie stands for when nothing has to be asked; None otherwise."""
        given = self._given(headers, peer.is_secure(headers))
        if given is None:
            return ANONYMOUS
        known = self._known.get(_name_of(given))
        return known[0] if known is not None and known[1] > self._clock() else None

    async def identify(self, headers: Headers, peer: Peer) -> Principal:
        """Whom the cookie stands for: nobody when it is over; raises Unavailable when nobody can tell."""
        given = self._given(headers, peer.is_secure(headers))
        if given is None:
            return ANONYMOUS
        name, drops = _name_of(given), self._drops
        record = await self._read(name)
        if record is not None and record.renew_at <= self._clock():
            record = await self._renewed(name, peer.client(headers))
        if record is None:
            return ANONYMOUS
        if self._tokens.has_ended(record.principal.via):
            with suppress(Unavailable):
                await self._delete(name)
            return ANONYMOUS
        # What was read while something was dropped may be that very thing: not kept.
        if drops == self._drops:
            self._keep(name, record)
        return record.principal

    def drop_sessions(self, ids: Iterable[str]) -> None:
        """Forget the browsers of these sessions; the tokens know that they have ended."""
        ended = set(ids)
        self._drops += 1
        for name in [name for name, (principal, _) in self._known.items() if principal.via in ended]:
            del self._known[name]

    def drop_all(self) -> None:
        """Forget every browser: the end of a session may have been missed."""
        self._drops += 1
        self._known.clear()

    # -- behind it

    def _given(self, headers: Headers, is_secure: bool) -> str | None:
        """The id in the cookie. Two of one name are none: one of them is not ours."""
        found = _COOKIES[self._cookie_name(is_secure)].findall(headers.get(COOKIE, ""))
        return found[0] if len(found) == 1 else None

    def _cookie_name(self, is_secure: bool) -> str:
        # No other host and no plain connection can set a cookie of this name (RFC 6265bis, 4.1.3.2).
        return "__Host-posthouse" if self._is_secure(is_secure) else "posthouse"

    def _is_secure(self, is_secure: bool) -> bool:
        return is_secure or self._public_origin.startswith("https:")

    def _cookie(self, incoming: Incoming, value: str, seconds: int) -> str:
        secure = "; Secure" if self._is_secure(incoming.secure) else ""
        name = self._cookie_name(incoming.secure)
        return f"{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}"

    def _keep(self, name: str, record: Record) -> None:
        if len(self._known) >= KEPT_BROWSERS:
            del self._known[next(iter(self._known))]
        now = self._clock()
        renewal = max(record.renew_at, now + 1)  # tried again every second while auth is away
        self._known[name] = (
            record.principal,
            min(now + KEPT_SECONDS, renewal, record.access_until, record.until),
        )

    async def _drop(self, incoming: Incoming, but: str = "") -> None:
        """End what this browser has; it is over as soon as either Redis or auth knows.

        A form that was sent twice opened one session: it has two records, and is not to end (`but`).
        """
        given = self._given(incoming.headers, incoming.secure)
        if given is None:
            return
        name = _name_of(given)
        principal, _ = self._known.pop(name, (None, 0.0))
        self._drops += 1
        try:
            record = await self._read(name)
            principal = principal if record is None else record.principal
            await self._delete(name)
            is_over = True
        except Unavailable:
            is_over = False
        if principal is not None and principal.via == but:
            return
        is_told = principal is not None and await self._end(principal, incoming)
        if not (is_over or is_told):
            raise Unavailable(AWAY)

    async def _end(self, principal: Principal, incoming: Incoming) -> bool:
        """Tell auth, which may do it later; whether it was told."""
        self._tokens.end_sessions([principal.via])
        self.drop_sessions([principal.via])
        caller = Caller(
            id=uuid7(),
            request_id=incoming.request_id,
            principal=principal,
            traceparent=incoming.traceparent,
            client=incoming.client,
        )
        try:
            await self._requester.submit(EndSession(), caller)
        except CallFailed as error:
            log.warning("session_not_ended", reason=error.detail)
            return False
        return True

    async def _renewed(self, name: str, client: str) -> Record | None:
        """Once for all who wait here; other processes get the same answer from auth."""
        task = self._renewing.get(name)
        if task is None:
            task = self._renewing[name] = asyncio.create_task(self._renew(name, client))
            task.add_done_callback(lambda done: self._renewal_ended(name, done))
        return await asyncio.shield(task)

    def _renewal_ended(self, name: str, task: asyncio.Task[Record | None]) -> None:
        del self._renewing[name]
        if not task.cancelled():
            task.exception()  # told to those who wait; perhaps nobody does any more

    async def _renew(self, name: str, client: str) -> Record | None:
        """The record with an access token that lives; None when the session is over.

        What another process or an earlier attempt has asked already is answered the same (the frame's id
        is that of the refresh token): an answer lost on its way, or a record Redis lost, ends no session.
        """
        for _ in range(MOST_RENEWALS):
            record = await self._read(name)
            if record is None or record.renew_at > self._clock():
                return record
            try:
                successor = await self._successor(record, client)
            except CallFailed as failure:
                return self._still_good(record, failure)
            if successor is None:
                await self._delete(name)
                return None
            if successor is not record and not await self._replace(name, successor):
                return None
            if successor.access_until > self._clock():
                return successor
            if successor is record:
                await asyncio.sleep(AGAIN_SECONDS)
        raise Unavailable(AWAY)

    def _still_good(self, record: Record, failure: CallFailed) -> Record:
        if record.access_until > self._clock():
            return record
        raise failure

    async def _successor(self, record: Record, client: str) -> Record | None:
        """What auth gives for the refresh token: None when nothing, the record itself when not yet."""
        try:
            opened = await self._refresh(record.refresh_token, client)
        except Refusal as refusal:
            if refusal.status in _OVER:
                return None
            if refusal.status == _RUNNING:
                return record
            raise Unavailable(refusal.detail) from refusal
        try:
            return await self._record(opened, record.until)
        except Turned:
            # An old answer, repeated: its access token is over, its refresh token has a successor.
            refresh = self._vault.unseal(opened.refresh_token, "auth.refresh")
            return msgspec.structs.replace(record, refresh_token=refresh, access_until=0.0)

    async def _refresh(self, token: str, client: str) -> SessionOpened:
        caller = Caller(
            id=keyed_id(GATEWAY, RefreshSession.topic, sha256(token.encode()).hexdigest()),
            request_id="refresh-session",
            principal=GATEWAY,
            seconds=RENEW_SECONDS,
            client=client,
        )
        sealed = self._vault.seal(token, "auth.refresh")
        return await self._requester.ask(RefreshSession(refresh_token=sealed), caller)

    async def _record(self, opened: SessionOpened, until: float) -> Record:
        principal, ends = await self._tokens.verify(self._vault.unseal(opened.access_token, "auth.token"))
        refresh = self._vault.unseal(opened.refresh_token, "auth.refresh") if opened.refresh_token else ""
        if opened.refresh_expires_at is not None:
            until = min(until, opened.refresh_expires_at.timestamp())
        early = min(EARLY_SECONDS, opened.expires_in / 2)
        return Record(
            principal=principal, renew_at=ends - early, access_until=ends, refresh_token=refresh, until=until
        )

    # -- Redis

    async def _read(self, name: str) -> Record | None:
        with _Asked():
            locked: Any = await self._redis.get(_key(name))
        if locked is None:
            return None
        try:
            record = _decode(self._vault.unlock(locked, _context(name)))
        except (SealBroken, msgspec.MsgspecError):
            return None  # of another server key, or put there by somebody else
        return record if record.until > self._clock() else None

    async def _write(self, name: str, record: Record) -> None:
        await self._set(name, record, only_there=False)

    async def _replace(self, name: str, record: Record) -> bool:
        """Whether it was still there: a browser that signed out meanwhile stays signed out."""
        return await self._set(name, record, only_there=True)

    async def _set(self, name: str, record: Record, *, only_there: bool) -> bool:
        locked = self._vault.lock(_encode(record).decode(), _context(name))
        with _Asked():
            done = await self._redis.set(_key(name), locked, xx=only_there, pxat=int(record.until * 1000))
        return bool(done)

    async def _delete(self, name: str) -> None:
        self._known.pop(name, None)
        with _Asked():
            await self._redis.delete(_key(name))

    @property
    def _redis(self) -> Redis:
        if self._store is None:
            raise Unavailable("This server has no Redis, which keeps the sessions of browsers.")
        return self._store


class _Asked:
    """A `with` block in which Redis may be away."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None and cache.away(error):
            raise Unavailable(AWAY) from error


def _name_of(given: str) -> str:
    return sha256(given.encode()).hexdigest()


def _key(name: str) -> str:
    return f"browser:{name}"


def _context(name: str) -> str:
    return f"gateway.browser:{name}"


def _own_origin(incoming: Incoming) -> str:
    """Scheme, host and port as the client sees them."""
    headers, peer = incoming.headers, incoming.peer
    host = headers.get(HOST, "")
    if peer.is_proxy:
        host = headers.getall(X_FORWARDED_HOST, [host])[-1].rpartition(",")[2].strip()
    return _origin(f"{'https' if incoming.secure else 'http'}://{host}")


def _origin(url: str) -> str:
    """As browsers write it: lower case, without the port of the scheme; empty when it is none."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    place = parts.netloc.lower().removesuffix(_PORTS.get(parts.scheme, "-"))
    return f"{parts.scheme}://{place}" if place else ""
