"""Access tokens: verified here with keys that auth tells, unless their session has ended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from services.gateway.http.problems import Turned
from shared.bus.ids import uuid7
from shared.bus.requests import Caller, CallFailed, Requester, Unavailable
from shared.contracts.auth import ListSigningKeys
from shared.contracts.base import Principal
from shared.errors import Refusal

GATEWAY = Principal(kind="service", id="gateway")
ISSUER = AUDIENCE = "posthouse"
LEEWAY_SECONDS = 5
ASK_AGAIN_SECONDS = 5.0
# The longest life auth gives a token: after it no token of an ended session is left.
ENDED_SECONDS = 86_400.0 + LEEWAY_SECONDS
KEPT_ENDED = 100_000
_REQUIRED = ("exp", "iat", "sub", "iss", "aud", "jti")


class Verified(NamedTuple):
    """Who a token speaks for, and until when (seconds since 1970)."""

    principal: Principal
    until: float


class AccessTokens:
    """Verifies tokens; keys are asked for when a token names one that is not known."""

    def __init__(self, requester: Requester, clock: Callable[[], float] = time.time) -> None:
        self._requester = requester
        self._clock = clock
        self._public: dict[str, Ed25519PublicKey] = {}
        self._asked_at = float("-inf")
        self._asking: asyncio.Task[None] | None = None
        self._ended: dict[str, float] = {}

    @property
    def can_verify(self) -> bool:
        """Whether a token can be verified at all."""
        return bool(self._public)

    async def learn(self) -> set[str]:
        """Ask auth for the public keys; answers the sessions newly known to have ended."""
        caller = Caller(id=uuid7(), request_id="signing-keys", principal=GATEWAY, seconds=3.0)
        reply = await self._requester.ask(ListSigningKeys(), caller)
        self._public = {key.kid: Ed25519PublicKey.from_public_bytes(key.public_key) for key in reply.keys}
        news = {str(name) for name in reply.ended if not self.has_ended(str(name))}
        self.end_sessions(news)
        return news

    async def verify(self, token: str) -> Verified:
        """Who it speaks for; raises Turned (401), or Unavailable when nobody can tell."""
        claims = await self._claims(token)
        principal = _principal(claims)
        if self.has_ended(principal.via):
            raise bad_token("The session of this access token has ended: open another one.")
        return Verified(principal, float(claims["exp"]))

    def end_sessions(self, ids: Iterable[str]) -> None:
        """Tokens of these sessions open nothing any more, whatever they say."""
        until = self._clock() + ENDED_SECONDS
        for name in ids:
            self._ended.pop(name, None)
            self._ended[name] = until
        while self._ended and (len(self._ended) > KEPT_ENDED or self._oldest_end() < self._clock()):
            del self._ended[next(iter(self._ended))]

    def has_ended(self, session: str) -> bool:
        """Whether a session is known to have ended before its time."""
        return session in self._ended

    def _oldest_end(self) -> float:
        return next(iter(self._ended.values()))

    async def _claims(self, token: str) -> dict[str, Any]:
        try:
            header = jwt.get_unverified_header(token)
            public = await self._public_key(str(header.get("kid", "")))
            if str(header.get("typ", "")).lower() != "at+jwt":
                raise bad_token("The token is no access token.")
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
            raise bad_token("The access token has expired: open a session again.") from None
        except (jwt.InvalidTokenError, ValueError, RecursionError):
            raise bad_token("The access token is not valid.") from None

    async def _public_key(self, kid: str) -> Ed25519PublicKey:
        if kid not in self._public:
            await self._ask_for_keys()
        if not self._public:
            raise Unavailable("Nobody can tell right now whether the access token is valid.")
        if kid not in self._public:
            raise bad_token("The access token is not valid.")
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
            await self.learn()
        except (CallFailed, Refusal):
            # Nothing was learnt; whoever has no key yet hears so.
            self._asked_at = float("-inf") if not self._public else self._asked_at


def _principal(claims: dict[str, Any]) -> Principal:
    roles = claims.get("roles", ())
    texts = [claims["sub"], claims.get("sid", ""), claims.get("project", "default"), *roles]
    if not isinstance(roles, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise bad_token("The access token is not valid.")
    return Principal(kind="user", id=texts[0], via=texts[1], project=texts[2], roles=tuple(roles))


def bad_token(detail: str) -> Turned:
    """401, and why."""
    return Turned(
        "unauthorized",
        detail,
        headers={"WWW-Authenticate": 'Bearer realm="posthouse", error="invalid_token"'},
    )
