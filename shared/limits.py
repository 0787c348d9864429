"""Rate limits all processes share: GCRA in Redis, one atomic step; counted here while Redis is away."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from hashlib import sha256
from typing import Any, NamedTuple

import structlog
from redis.asyncio import Redis

log = structlog.get_logger()

AGAIN_SECONDS = 1.0
ANSWER_SECONDS = 0.5
MOST_KEYS = 10_000

# The generic cell rate algorithm: one number for each key says when it will be at rest again. A permit moves
# it `interval` ahead, and it may be ahead of now by `window` at the most. Of what is asked (ARGV 3) as much
# is given as is free, but not less than ARGV 4; a negative cost gives back. Times in microseconds of Redis.
_SCRIPT = """
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local interval, window = tonumber(ARGV[1]), tonumber(ARGV[2])
local cost, least = tonumber(ARGV[3]), tonumber(ARGV[4])
local ahead = math.max(tonumber(redis.call('GET', KEYS[1]) or now) - now, 0)
local granted = math.min(cost, math.floor((window - ahead) / interval))
if granted < least then return {0, ahead} end
ahead = math.max(ahead + granted * interval, 0)
if ahead > 0 then
  redis.call('SET', KEYS[1], string.format('%.0f', now + ahead), 'PX', math.ceil(ahead / 1000))
else
  redis.call('DEL', KEYS[1])
end
return {granted, ahead}
"""


class Limit(NamedTuple):
    """`burst` at once, then one per `seconds / burst`: after `seconds` of rest all of it again."""

    name: str
    burst: int
    seconds: float

    @property
    def interval(self) -> int:
        """Microseconds in which one comes back."""
        return max(round(self.seconds * 1_000_000 / self.burst), 1)

    @property
    def window(self) -> int:
        """Microseconds in which all come back."""
        return self.interval * self.burst


class Verdict(NamedTuple):
    """What a limit says; `granted` is how many of those asked for, times are in seconds.

    `retry_after` is 0 when allowed, else how long until as many are free as were asked for. `reset_after`
    is how long until the whole burst is.
    """

    allowed: bool
    remaining: int
    retry_after: float
    reset_after: float
    granted: int = 0


class Limiter:
    """Takes permits for keys of any text; no failure of Redis is ever the caller's.

    While Redis is away each process counts for itself, from what it saw last, and asks again after a second.
    Keys are kept as digests: no address and no name is found in Redis.
    """

    def __init__(
        self,
        redis: Redis | None,
        prefix: str,
        *,
        seconds: float = ANSWER_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._script: Any = redis.register_script(_SCRIPT) if redis is not None else None
        self._prefix = prefix
        self._seconds = seconds
        self._clock = clock
        self._own = _Table()
        self._ask_at = 0.0
        self._is_away = False

    @property
    def is_alone(self) -> bool:
        """Whether Redis is away and every process counts for itself."""
        return self._is_away

    async def take(self, limit: Limit, key: str, cost: int = 1) -> Verdict:
        """Take `cost` permits or none. 0 only looks; a negative cost gives back what was taken.

        A cost above the burst is never allowed.
        """
        return await self._judge(limit, key, cost, cost)

    async def take_some(self, limit: Limit, key: str, most: int) -> Verdict:
        """Take as many as are free, at most `most`; refused when none is."""
        return await self._judge(limit, key, most, 1)

    async def _judge(self, limit: Limit, key: str, cost: int, least: int) -> Verdict:
        name = f"{self._prefix}:{limit.name}:{sha256(key.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"
        now = self._now()
        if self._script is None or now < self._ask_at:
            granted, ahead = self._own.take(name, now, limit, cost, least)
        else:
            if self._is_away:
                self._ask_at = now + AGAIN_SECONDS * 1_000_000  # the others do not wait for this attempt
            try:
                granted, ahead = await self._ask(name, limit, cost, least)
            except Exception as error:
                self._lost(error)
                granted, ahead = self._own.take(name, self._now(), limit, cost, least)
            else:
                self._found()
                self._own.keep(name, self._now() + ahead)
        return _verdict(limit, granted, ahead, least)

    async def _ask(self, name: str, limit: Limit, cost: int, least: int) -> tuple[int, int]:
        async with asyncio.timeout(self._seconds):
            granted, ahead = await self._script(keys=[name], args=[limit.interval, limit.window, cost, least])
        return int(granted), int(ahead)

    def _lost(self, error: Exception) -> None:
        self._ask_at = self._now() + AGAIN_SECONDS * 1_000_000
        if not self._is_away:
            self._is_away = True
            log.warning("limits_count_alone", limits=self._prefix, error=repr(error))

    def _found(self) -> None:
        self._ask_at = 0
        if self._is_away:
            self._is_away = False
            log.warning("limits_count_together", limits=self._prefix)

    def _now(self) -> int:
        return round(self._clock() * 1_000_000)


class _Table:
    """The same algorithm over a dictionary that forgets what was used longest ago."""

    def __init__(self) -> None:
        self._at_rest: dict[str, int] = {}

    def take(self, name: str, now: int, limit: Limit, cost: int, least: int) -> tuple[int, int]:
        ahead = max(self._at_rest.get(name, now) - now, 0)
        granted = min(cost, (limit.window - ahead) // limit.interval)
        if granted < least:
            return 0, ahead
        ahead = max(ahead + granted * limit.interval, 0)
        self.keep(name, now + ahead)
        return granted, ahead

    def keep(self, name: str, at_rest: int) -> None:
        self._at_rest.pop(name, None)
        if len(self._at_rest) >= MOST_KEYS:
            del self._at_rest[next(iter(self._at_rest))]
        self._at_rest[name] = at_rest


def _verdict(limit: Limit, granted: int, ahead: int, least: int) -> Verdict:
    allowed = granted >= least
    remaining = max((limit.window - ahead) // limit.interval, 0)
    wait = 0 if allowed else max(ahead + least * limit.interval - limit.window, 0)
    return Verdict(allowed, remaining, wait / 1_000_000, ahead / 1_000_000, max(granted, 0))


def parse_limit(name: str, text: str) -> Limit | None:
    """`burst/seconds` as settings have it, such as `60/60`; empty or `0`: no limit. Raises ValueError."""
    if text in ("", "0"):
        return None
    burst, _, seconds = text.partition("/")
    limit = Limit(name, int(burst), float(seconds or "nan"))
    if limit.burst < 1 or not math.isfinite(limit.seconds) or limit.seconds <= 0:
        raise ValueError(f"{text!r} is no limit: write how many at once / seconds until as many again")
    return limit
