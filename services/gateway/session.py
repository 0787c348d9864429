"""Who is calling: by access token, dataset key or cookie; what was learnt is kept for a minute at most."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from typing import NamedTuple, cast

from aiohttp.hdrs import AUTHORIZATION, COOKIE

from services.gateway.browser import BrowserSessions
from services.gateway.holders import ENDED, Holders
from services.gateway.http.incoming import API_KEY
from services.gateway.http.problems import Turned
from services.gateway.http.proxies import Headers, Peer
from services.gateway.tokens import GATEWAY, AccessTokens, bad_token
from shared.bus.ids import uuid7
from shared.bus.requests import Caller, CallFailed, Requester
from shared.contracts.base import ANONYMOUS, Principal
from shared.contracts.ingest import KeyHolder, ResolveKey, unproved
from shared.errors import NotFound, Refusal
from shared.vault import Vault

KEPT_SECONDS = 60.0
KEPT_CALLERS = 10_000
# A dataset key is asked about for so long; whoever only writes goes on sooner, by what was known of it.
ASK_SECONDS, HINT_SECONDS = 5.0, 0.1
_KEY = re.compile(r"[0-9A-Z]{16}", re.ASCII)
_KEY_MARK = "\0"  # no header value begins so: a key is never taken for a token
_NOBODY = Peer()


class _Known(NamedTuple):
    principal: Principal
    until: float
    digest: bytes


class Callers:
    """Tells who sent a request by its headers; `drop_*` forget what was learnt about a secret."""

    def __init__(
        self,
        requester: Requester,
        vault: Vault,
        clock: Callable[[], float] = time.time,
        *,
        tokens: AccessTokens | None = None,
        browser: BrowserSessions | None = None,
        holders: Holders | None = None,
    ) -> None:
        self._requester = requester
        self._vault = vault
        self._clock = clock
        self._tokens = tokens or AccessTokens(requester, clock)
        self.browser = browser or BrowserSessions(requester, vault, self._tokens, clock=clock)
        self.holders = holders or Holders()
        self._asking: dict[bytes, tuple[asyncio.Task[KeyHolder], float]] = {}
        self._known: dict[bytes, _Known] = {}
        self._by_digest: dict[bytes, bytes] = {}
        self._drops = 0
        self.missed = asyncio.Event()
        """Set when events may have been missed: auth is to be asked what they would have said."""

    @property
    def has_signing_keys(self) -> bool:
        """Whether a token can be verified at all."""
        return self._tokens.can_verify

    async def learn_signing_keys(self) -> None:
        """Ask auth for the public keys and the sessions that have ended; raises what the call raises."""
        self.drop_sessions(await self._tokens.learn())

    def at_once(self, headers: Mapping[str, str], peer: Peer = _NOBODY) -> Principal | None:
        """The caller when nothing has to be asked: anonymous, or known; None otherwise."""
        bearer, key = headers.get(AUTHORIZATION), headers.get(API_KEY)
        if bearer is None and key is None:
            return self.browser.at_once(cast(Headers, headers), peer) if COOKIE in headers else ANONYMOUS
        if bearer is not None and key is not None:
            raise Turned("bad_header", "Authorization and X-API-Key exclude each other: send one of them.")
        known = self._known.get(_name(bearer if key is None else _KEY_MARK + key))
        if known is None or known.until <= self._clock():
            return None
        return known.principal

    async def identify(
        self, headers: Mapping[str, str], peer: Peer = _NOBODY, *, proves_later: bool = False
    ) -> Principal:
        """The caller; raises Turned (401) for a bad secret, Unavailable when nobody can tell.

        A cookie that is over is no bad secret: whoever sends it is anonymous. With `proves_later` a key that
        cannot be asked about, and was known, is left to the service (`unproved`).
        """
        known = self.at_once(headers, peer)
        if known is not None:
            return known
        key = headers.get(API_KEY)
        if key is not None:
            return await self._key_holder(key, proves_later)
        bearer = headers.get(AUTHORIZATION)
        if bearer is not None:
            return await self._bearer(bearer)
        return await self.browser.identify(cast(Headers, headers), peer)

    def drop_dataset_key(self, digests: Iterable[bytes]) -> None:
        """Forget holders of these keys, and what is being asked about any key right now."""
        self._drops += 1
        self._asking.clear()
        ended = tuple(digests)
        self.holders.ended(ended)
        for digest in ended:
            self._known.pop(self._by_digest.pop(digest, b""), None)

    def drop_sessions(self, ids: Iterable[str]) -> None:
        """These sessions have ended: their tokens and cookies open nothing any more."""
        ended = set(ids)
        self._tokens.end_sessions(ended)
        self.browser.drop_sessions(ended)
        # Few events, at most 10,000 entries: a look at each costs less than an index on every request.
        for name in [name for name, known in self._known.items() if known.principal.via in ended]:
            self._by_digest.pop(self._known.pop(name).digest, None)

    def drop_all(self) -> None:
        """Forget every caller: a revocation may have been missed."""
        self._drops += 1
        self._asking.clear()
        self.missed.set()
        self._known.clear()
        self._by_digest.clear()
        self.browser.drop_all()

    async def _key_holder(self, key: str, proves_later: bool) -> Principal:
        if not _KEY.fullmatch(key):
            raise Turned("unauthorized", "X-API-Key is 16 characters of 0-9 and A-Z.")
        digest = self._vault.digest(key, "ingest.key")
        asking, began = self._ask_about(key, digest)
        if proves_later:
            await asyncio.wait([asking], timeout=max(began + HINT_SECONDS - time.monotonic(), 0))
            if not asking.done() or isinstance(asking.exception(), CallFailed):
                last = await self._last_holder(digest)
                if last is not None:
                    return _holder(last, digest, unproved(digest))
        holder = await asyncio.shield(asking)
        return _holder(holder, digest)

    async def _last_holder(self, digest: bytes) -> KeyHolder | None:
        """Who may have the key still; a read key writes nothing, and is not to be taken for the other one."""
        last = await self.holders.last(digest)
        if last == ENDED:
            raise _no_such_key()
        return last if isinstance(last, KeyHolder) and last.kind == "write" else None

    def _ask_about(self, key: str, digest: bytes) -> tuple[asyncio.Task[KeyHolder], float]:
        """Once for all who wait here."""
        if digest not in self._asking:
            asking = asyncio.create_task(self._resolve(key, digest))
            asking.add_done_callback(lambda done: self._asked(digest, done))
            self._asking[digest] = asking, time.monotonic()
        return self._asking[digest]

    def _asked(self, digest: bytes, asking: asyncio.Task[KeyHolder]) -> None:
        if digest in self._asking and self._asking[digest][0] is asking:
            del self._asking[digest]
        if not asking.cancelled():
            asking.exception()  # told to those who wait; perhaps nobody does any more

    async def _resolve(self, key: str, digest: bytes) -> KeyHolder:
        drops = self._drops
        caller = Caller(id=uuid7(), request_id="resolve-key", principal=GATEWAY, seconds=ASK_SECONDS)
        try:
            holder = await self._requester.ask(ResolveKey(digest=digest), caller)
        except Refusal as refusal:
            # Over the wire a refusal keeps its status, not its class.
            if refusal.status != NotFound.status:
                raise
            self.holders.unknown(digest)
            raise _no_such_key() from None
        # An answer that was on its way while a key was revoked may be about that key: not kept.
        if drops == self._drops:
            self._keep(_KEY_MARK + key, _holder(holder, digest), self._clock() + KEPT_SECONDS, digest)
            self.holders.found(digest, holder)
        return holder

    async def _bearer(self, header: str) -> Principal:
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise bad_token("Authorization is `Bearer <access token>`.")
        principal, until = await self._tokens.verify(token.strip())
        self._keep(header, principal, min(until, self._clock() + KEPT_SECONDS))
        return principal

    def _keep(self, secret: str, principal: Principal, until: float, digest: bytes = b"") -> None:
        if len(self._known) >= KEPT_CALLERS:
            oldest = next(iter(self._known))
            self._by_digest.pop(self._known.pop(oldest).digest, None)
        name = _name(secret)
        self._known[name] = _Known(principal, until, digest)
        if digest:
            self._by_digest[digest] = name


def _holder(holder: KeyHolder, digest: bytes, scope: str = "") -> Principal:
    return Principal(
        kind="key",
        id=str(holder.dataset_id),
        via=digest[:4].hex(),
        project=holder.project,
        scopes=(scope or f"dataset:{holder.dataset_id}:{holder.kind}",),
    )


def _no_such_key() -> Turned:
    return Turned("unauthorized", "No dataset has this key (any more).")


def _name(secret: str | None) -> bytes:
    # aiohttp reads header bytes that are no UTF-8 as lone surrogates.
    return sha256((secret or "").encode("utf-8", "surrogateescape")).digest()
