"""Who is calling: access tokens verified here, dataset keys asked for, both kept for a minute at most."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from typing import Any, NamedTuple

import jwt
from aiohttp.hdrs import AUTHORIZATION
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from multidict import istr

from services.gateway.http.problems import Turned
from shared.bus.ids import uuid7
from shared.bus.requests import Caller, CallFailed, Requester, Unavailable
from shared.contracts.auth import ListSigningKeys
from shared.contracts.base import ANONYMOUS, Principal
from shared.contracts.ingest import ResolveKey
from shared.errors import NotFound, Refusal
from shared.vault import Vault

GATEWAY = Principal(kind="service", id="gateway")
ISSUER = AUDIENCE = "posthouse"
LEEWAY_SECONDS = 5
KEPT_SECONDS = 60.0
KEPT_CALLERS = 10_000
ASK_AGAIN_SECONDS = 5.0
_REQUIRED = ("exp", "iat", "sub", "iss", "aud", "jti")
_KEY = re.compile(r"[0-9A-Z]{16}", re.ASCII)
API_KEY = istr("X-API-Key")
_KEY_MARK = "\0"  # no header value begins so: a key is never taken for a token


class _Known(NamedTuple):
    principal: Principal
    until: float
    digest: bytes


class Callers:
    """Tells who sent a request by its headers; `drop_*` forget what was learnt about a secret."""

    def __init__(self, requester: Requester, vault: Vault, clock: Callable[[], float] = time.time) -> None:
        self._requester = requester
        self._vault = vault
        self._clock = clock
        self._known: dict[bytes, _Known] = {}
        self._by_digest: dict[bytes, bytes] = {}
        self._drops = 0
        self._public: dict[str, Ed25519PublicKey] = {}
        self._asked_at = float("-inf")
        self._asking: asyncio.Task[None] | None = None

    @property
    def has_signing_keys(self) -> bool:
        """Whether a token can be verified at all."""
        return bool(self._public)

    def at_once(self, headers: Mapping[str, str]) -> Principal | None:
        """The caller when nothing has to be asked: anonymous, or known; None otherwise."""
        bearer, key = headers.get(AUTHORIZATION), headers.get(API_KEY)
        if bearer is None and key is None:
            return ANONYMOUS
        if bearer is not None and key is not None:
            raise Turned("bad_header", "Authorization and X-API-Key exclude each other: send one of them.")
        known = self._known.get(_name(bearer if key is None else _KEY_MARK + key))
        if known is None or known.until <= self._clock():
            return None
        return known.principal

    async def identify(self, headers: Mapping[str, str]) -> Principal:
        """The caller; raises Turned (401) for a bad secret, Unavailable when nobody can tell."""
        known = self.at_once(headers)
        if known is not None:
            return known
        key = headers.get("X-API-Key")
        if key is not None:
            return await self._key_holder(key)
        return await self._bearer(headers["Authorization"])

    async def learn_signing_keys(self) -> None:
        """Ask auth for the public keys; raises what the call raises."""
        caller = Caller(id=uuid7(), request_id="signing-keys", principal=GATEWAY, seconds=3.0)
        reply = await self._requester.ask(ListSigningKeys(), caller)
        self._public = {key.kid: Ed25519PublicKey.from_public_bytes(key.public_key) for key in reply.keys}

    def drop_dataset_key(self, digests: Iterable[bytes]) -> None:
        """Forget holders of these keys, and what is being asked about any key right now."""
        self._drops += 1
        for digest in digests:
            self._known.pop(self._by_digest.pop(digest, b""), None)

    def drop_all(self) -> None:
        """Forget every caller: a revocation may have been missed."""
        self._drops += 1
        self._known.clear()
        self._by_digest.clear()

    async def _key_holder(self, key: str) -> Principal:
        if not _KEY.fullmatch(key):
            raise Turned("unauthorized", "X-API-Key is 16 characters of 0-9 and A-Z.")
        digest = self._vault.digest(key, "ingest.key")
        drops = self._drops
        caller = Caller(id=uuid7(), request_id="resolve-key", principal=GATEWAY, seconds=5.0)
        try:
            holder = await self._requester.ask(ResolveKey(digest=digest), caller)
        except Refusal as refusal:
            # Over the wire a refusal keeps its status, not its class.
            if refusal.status != NotFound.status:
                raise
            raise Turned("unauthorized", "No dataset has this key (any more).") from None
        principal = Principal(
            kind="key",
            id=str(holder.dataset_id),
            via=digest[:4].hex(),
            project=holder.project,
            scopes=(f"dataset:{holder.dataset_id}:{holder.kind}",),
        )
        # An answer that was on its way while a key was revoked may be about that key: not kept.
        if drops == self._drops:
            self._keep(_KEY_MARK + key, principal, self._clock() + KEPT_SECONDS, digest)
        return principal

    async def _bearer(self, header: str) -> Principal:
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise _bad_token("Authorization is `Bearer <access token>`.")
        claims = await self._claims(token.strip())
        until = min(float(claims["exp"]), self._clock() + KEPT_SECONDS)
        principal = _principal(claims)
        self._keep(header, principal, until)
        return principal

    async def _claims(self, token: str) -> dict[str, Any]:
        try:
            header = jwt.get_unverified_header(token)
            public = await self._public_key(str(header.get("kid", "")))
            if str(header.get("typ", "")).lower() != "at+jwt":
                raise _bad_token("The token is no access token.")
            return jwt.decode(
                token,
                public,
                algorithms=["EdDSA"],
                audience=AUDIENCE,
                issuer=ISSUER,
                leeway=LEEWAY_SECONDS,
                options={"require": list(_REQUIRED)},
            )
        except jwt.ExpiredSignatureError:
            raise _bad_token("The access token has expired: open a session again.") from None
        except (jwt.InvalidTokenError, ValueError, RecursionError):
            raise _bad_token("The access token is not valid.") from None

    async def _public_key(self, kid: str) -> Ed25519PublicKey:
        if kid not in self._public:
            await self._ask_for_keys()
        if not self._public:
            raise Unavailable("Nobody can tell right now whether the access token is valid.")
        if kid not in self._public:
            raise _bad_token("The access token is not valid.")
        return self._public[kid]

    async def _ask_for_keys(self) -> None:
        """Once for all who wait, and not more often than every 5 s: anybody can invent a kid."""
        if self._asking is None or self._asking.done():
            if self._clock() - self._asked_at < ASK_AGAIN_SECONDS:
                return
            self._asked_at = self._clock()
            self._asking = asyncio.create_task(self._try_to_learn())
        await asyncio.shield(self._asking)

    async def _try_to_learn(self) -> None:
        try:
            await self.learn_signing_keys()
        except (CallFailed, Refusal):
            # Nothing was learnt; whoever has no key yet hears so.
            self._asked_at = float("-inf") if not self._public else self._asked_at

    def _keep(self, secret: str, principal: Principal, until: float, digest: bytes = b"") -> None:
        if len(self._known) >= KEPT_CALLERS:
            oldest = next(iter(self._known))
            self._by_digest.pop(self._known.pop(oldest).digest, None)
        name = _name(secret)
        self._known[name] = _Known(principal, until, digest)
        if digest:
            self._by_digest[digest] = name


def _name(secret: str | None) -> bytes:
    # aiohttp reads header bytes that are no UTF-8 as lone surrogates.
    return sha256((secret or "").encode("utf-8", "surrogateescape")).digest()


def _principal(claims: dict[str, Any]) -> Principal:
    roles = claims.get("roles", ())
    texts = [claims["sub"], claims.get("sid", ""), claims.get("project", "default"), *roles]
    if not isinstance(roles, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise _bad_token("The access token is not valid.")
    return Principal(kind="user", id=texts[0], via=texts[1], project=texts[2], roles=tuple(roles))


def _bad_token(detail: str) -> Turned:
    return Turned(
        "unauthorized",
        detail,
        headers={"WWW-Authenticate": 'Bearer realm="posthouse", error="invalid_token"'},
    )
