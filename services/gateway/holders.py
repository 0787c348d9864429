"""Whom dataset keys belonged to when they were last asked about: a hint in Redis, never a proof."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec
import structlog
from redis.asyncio import Redis

from shared import cache, tasks
from shared.contracts.ingest import KeyHolder

log = structlog.get_logger()

KEPT_SECONDS = 30 * 86_400
ANSWER_SECONDS = 0.5
AGAIN_SECONDS = 1.0
MOST_WAITING = 10_000
ENDED = b""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(KeyHolder).decode


class _News(NamedTuple):
    """What Redis has not heard yet of a key; `only_there`: not worth a place of its own."""

    value: bytes
    only_there: bool = False


class Holders:
    """Shared by all gateways, so that one started anew knows the devices of the others.

    It may be old, and anybody who can write to Redis can make it say anything: ingest looks again at every
    key before it does what came with it. What Redis has not taken is told again until it has.
    """

    def __init__(self, redis: Redis | None = None) -> None:
        self._redis = redis
        self._news: dict[bytes, _News] = {}
        self._telling: asyncio.Task[None] | None = None

    def found(self, digest: bytes, holder: KeyHolder) -> None:
        """The key opens this."""
        self._tell({digest: _News(_encode(holder))})

    def unknown(self, digest: bytes) -> None:
        """No dataset has the key; whoever sends keys that never were fills nothing with them."""
        self._tell({digest: _News(ENDED, only_there=True)})

    def ended(self, digests: Iterable[bytes]) -> None:
        """These keys open nothing any more."""
        self._tell({digest: _News(ENDED) for digest in digests})

    async def last(self, digest: bytes) -> KeyHolder | bytes | None:
        """Whom the key belonged to, ENDED, or None when nobody has heard of it or Redis is away."""
        value: Any = None
        if (news := self._news.get(digest)) is not None and not news.only_there:
            value = news.value
        elif self._redis is not None:
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    value = await self._redis.get(_name(digest))
            except Exception as error:
                if not cache.away(error):
                    raise
        try:
            return _decode(value) if value else value
        except msgspec.MsgspecError:
            return None

    def _tell(self, news: dict[bytes, _News]) -> None:
        if self._redis is None or len(self._news) + len(news) > MOST_WAITING:
            return
        self._news |= news
        if self._telling is None or self._telling.done():
            self._telling = asyncio.create_task(self._tell_all(self._redis))

    async def _tell_all(self, redis: Redis) -> None:
        while self._news:
            told = dict(self._news)
            try:
                async with asyncio.timeout(ANSWER_SECONDS), redis.pipeline(transaction=False) as pipe:
                    for digest, (value, only_there) in told.items():
                        pipe.set(_name(digest), value, ex=KEPT_SECONDS, xx=only_there)
                    await pipe.execute()
            except Exception as error:
                if not cache.away(error):
                    log.exception("holders_not_told")
                await asyncio.sleep(AGAIN_SECONDS)
                continue
            self._news = {digest: news for digest, news in self._news.items() if told.get(digest) is not news}

    async def close(self) -> None:
        """What was not told is forgotten."""
        if self._telling is not None:
            await tasks.end([self._telling])


def _name(digest: bytes) -> str:
    return f"key:{digest.hex()}"
