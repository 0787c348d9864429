"""Protections of the gateway, taken away to show what they are for."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress

import redis

from services.gateway.session import Callers
from services.gateway.tokens import AccessTokens
from shared.bus import codec
from shared.bus.calls import Pending
from shared.bus.link import Delivery
from shared.bus.requester import BusRequester
from shared.contracts.base import Principal, owner_of

ANSWER_SECONDS = 0.5


def remember_ends_in_redis_only() -> None:
    """Sessions that have ended are known to Redis alone; while it cannot tell, or has forgotten, none has."""
    client = redis.Redis.from_url(
        os.environ["POSTHOUSE_REDIS_URL"],
        socket_timeout=ANSWER_SECONDS,
        socket_connect_timeout=ANSWER_SECONDS,
    )

    def end_sessions(self: AccessTokens, ids: Iterable[str]) -> None:
        with suppress(redis.RedisError):
            for name in ids:
                client.set(f"ended:{name}", 1)

    def has_ended(self: AccessTokens, session: str) -> bool:
        with suppress(redis.RedisError):
            return bool(client.exists(f"ended:{session}"))
        return False

    AccessTokens.end_sessions = end_sessions  # type: ignore[method-assign]
    AccessTokens.has_ended = has_ended  # type: ignore[method-assign]


def ask_auth_about_each_token() -> None:
    """No key of auth's is kept, and nobody who was known a moment ago."""
    learn, keep = AccessTokens._public_key, Callers._keep

    async def forgetful(self: AccessTokens, kid: str) -> object:
        self._public = {}
        self._asked_at = float("-inf")
        return await learn(self, kid)

    def keep_keys(self: Callers, secret: str, who: Principal, until: float, digest: bytes = b"") -> None:
        if digest:
            keep(self, secret, who, until, digest)

    AccessTokens._public_key = forgetful  # type: ignore[method-assign, assignment]
    Callers._keep = keep_keys  # type: ignore[method-assign]


def take_replies_in_order() -> None:
    """A reply nobody waits for is taken by whoever has waited longest for the same service."""

    def next_of(self: BusRequester, publisher: str) -> Pending | None:
        waiting = (call for call in self._calls.values() if owner_of(call.frame.topic) == publisher)
        return next(waiting, None)

    def on_reply(self: BusRequester, delivery: Delivery) -> None:
        delivery.ack()
        for reply in codec.decode_replies(delivery.body, delivery.properties):
            pending = self._calls.get(reply.call) or next_of(self, delivery.properties.user_id)
            if pending is not None:
                self._answer(pending, reply)

    BusRequester.on_reply = on_reply  # type: ignore[method-assign]


def let_mistakes_in_json_fall() -> None:
    """A body that cannot be read is nobody's to answer."""
    from services.gateway.http import endpoint

    endpoint.read_form = lambda decoder, body: decoder.decode(body)


PROTECTIONS = {
    "JSON": let_mistakes_in_json_fall,
    "REVOKED": remember_ends_in_redis_only,
    "KEYS": ask_auth_about_each_token,
    "CORRELATION": take_replies_in_order,
}


def arm() -> None:
    """Take away what the environment names."""
    for name, take_away in PROTECTIONS.items():
        if os.environ.get(f"FAULTS_{name}") == "off":
            take_away()
