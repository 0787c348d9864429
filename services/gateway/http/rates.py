"""How often somebody may call: permits come from Redis in blocks, so that most requests ask nobody."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from ipaddress import ip_address, ip_network

from services.gateway.http.incoming import Incoming
from services.gateway.http.problems import Turned
from services.gateway.settings import Settings
from shared.contracts.auth import OpenSession, RestoreMe, SetUp, SignUp
from shared.contracts.base import ANONYMOUS, Message
from shared.limits import Limit, Limiter, parse_limit
from shared.settings import BadSettings

SIGN_IN = "sign-in"
# What anybody may try, and guess at.
TRIED: tuple[type[Message], ...] = (OpenSession, RestoreMe, SetUp, SignUp)
BLOCKS = 50  # of a whole burst; a process holds one of them at the most
BLOCK_SECONDS = 1.0
MOST_BLOCKS = 10_000


class _Block:
    """Permits this process has taken and not used yet, and what Redis said when it gave them."""

    __slots__ = ("again_at", "full_at", "left", "remaining", "until")

    def __init__(self) -> None:
        self.left = self.remaining = 0
        self.until = self.again_at = self.full_at = 0.0


class Rates:
    """One limit for each caller: people and keys by their id, everybody else by address.

    Whoever tries to sign in is counted by address apart, one by one. The headers of a request's answer say
    what is left (draft-ietf-httpapi-ratelimit-headers). `counts_callers` says whether people and keys have a
    limit at all.
    """

    def __init__(
        self, limiter: Limiter, settings: Settings, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limiter = limiter
        self._clock = clock
        self._sign_in = _limit(SIGN_IN, "rate_sign_in", settings)
        self._anonymous = _limit("anonymous", "rate_anonymous", settings)
        self._callers = _limit("caller", "rate_callers", settings)
        self.counts_callers = self._callers is not None
        self._blocks: dict[tuple[str, str], _Block] = {}
        self._leases: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._waiting: Counter[tuple[str, str]] = Counter()

    def at_once(self, incoming: Incoming, rate: str) -> bool:
        """Whether a request may go on without asking anybody; a permit is used when there is a limit."""
        limit = self._limit_of(incoming, rate)
        return limit is None or self._uses(limit, incoming)

    async def admit(self, incoming: Incoming, rate: str = "") -> None:
        """Use a permit; raises Turned (429) when there is none."""
        limit = self._limit_of(incoming, rate)
        if limit is None:
            return
        key = (limit.name, _who(limit, incoming))
        self._waiting[key] += 1
        try:
            while not self._uses(limit, incoming):
                block = self._blocks.get(key)
                if block is not None and self._clock() < block.again_at:
                    raise self._refused(limit, block, incoming)
                await self._lease(limit, key)
        finally:
            self._waiting[key] -= 1
            if not self._waiting[key]:
                del self._waiting[key]

    def _limit_of(self, incoming: Incoming, rate: str) -> Limit | None:
        if rate == SIGN_IN:
            return self._sign_in
        return self._anonymous if incoming.principal is ANONYMOUS else self._callers

    def _uses(self, limit: Limit, incoming: Incoming) -> bool:
        block = self._blocks.get((limit.name, _who(limit, incoming)))
        now = self._clock()
        if block is None or block.left < 1 or now >= block.until:
            return False
        block.left -= 1
        incoming.rate = _headers(limit, block.remaining + block.left, block.full_at - now)
        return True

    def _refused(self, limit: Limit, block: _Block, incoming: Incoming) -> Turned:
        now = self._clock()
        incoming.rate = _headers(limit, 0, block.full_at - now)
        seconds = max(math.ceil(block.again_at - now), 1)
        return Turned("too_many_requests", headers={"Retry-After": str(seconds)})

    async def _lease(self, limit: Limit, key: tuple[str, str]) -> None:
        """Once for all who wait here."""
        task = self._leases.get(key)
        if task is None:
            task = self._leases[key] = asyncio.create_task(self._take(limit, key))
            task.add_done_callback(lambda _: self._leases.pop(key))
        await asyncio.shield(task)

    async def _take(self, limit: Limit, key: tuple[str, str]) -> None:
        size = 1 if limit.name == SIGN_IN else max(limit.burst // BLOCKS, 1)
        verdict = await self._limiter.take_some(limit, key[1], max(size, self._waiting[key]))
        now = self._clock()
        block = self._blocks.pop(key, None) or _Block()
        if len(self._blocks) >= MOST_BLOCKS:
            del self._blocks[next(iter(self._blocks))]
        self._blocks[key] = block
        block.left = verdict.granted
        # What is kept longer than it takes to come back would be given twice.
        block.until = now + max(size * limit.seconds / limit.burst, BLOCK_SECONDS)
        block.again_at = now + verdict.retry_after
        block.remaining, block.full_at = verdict.remaining, now + verdict.reset_after


def _who(limit: Limit, incoming: Incoming) -> str:
    """Whom a limit counts; a key of a dataset has the dataset's id and a digest of its own."""
    principal = incoming.principal
    if limit.name == "caller":
        return f"{principal.kind}:{principal.id}:{principal.via if principal.kind == 'key' else ''}"
    return _neighbours(incoming.client)


@lru_cache(4_096)
def _neighbours(address: str) -> str:
    """An address, or the /64 of one of IPv6: whoever has one of those has all."""
    try:
        known = ip_address(address)
    except ValueError:
        return address
    return address if known.version == 4 else str(ip_network((known, 64), strict=False))


def _headers(limit: Limit, remaining: int, seconds: float) -> tuple[str, str]:
    return (
        f'"{limit.name}";r={remaining};t={max(math.ceil(seconds), 0)}',
        f'"{limit.name}";q={limit.burst};w={math.ceil(limit.seconds)}',
    )


def _limit(name: str, setting: str, settings: Settings) -> Limit | None:
    try:
        return parse_limit(name, getattr(settings, setting))
    except ValueError as error:
        raise BadSettings(f"POSTHOUSE_{setting.upper()}: {error}") from error
