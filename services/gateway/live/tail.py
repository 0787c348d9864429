"""Following the log: a queue for each who follows, which forgets what nobody reads."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import NamedTuple, Protocol

import msgspec
import structlog

from shared.bus import codec
from shared.bus.link import Delivery, NotPublished, OnDelivery, OnLost, PrivateQueue
from shared.bus.requests import Unavailable
from shared.contracts.worker import LEVELS, Level, LogLine, StoreLogLines
from shared.errors import TooMany

log = structlog.get_logger()
MOST_LISTENERS = 16
MOST_MESSAGES = 64  # a dozen seconds of a busy service; beyond that the broker forgets the oldest
PREFETCH = 4
BEAT_SECONDS = 15.0  # so often at least something is said, or proxies take the connection for dead
_shipment = msgspec.msgpack.Decoder(StoreLogLines)


class Source(Protocol):
    """The part of a link this needs."""

    async def follow_logs(
        self, keys: tuple[str, ...], on_delivery: OnDelivery, *, most: int, prefetch: int, on_lost: OnLost
    ) -> PrivateQueue:
        """As `Link.follow_logs`."""


class Pattern(NamedTuple):
    """Which lines somebody wants: of one service or all, so grave at least, with this text."""

    service: str = ""
    level: Level | None = None
    text: str = ""

    @property
    def keys(self) -> tuple[str, ...]:
        """The routing keys to bind; processes of an older version sent all levels as `<service>.lines`."""
        service = self.service or "*"
        if self.level is None:
            return (f"{service}.*",)
        wanted = [name for name, number in LEVELS.items() if number >= LEVELS[self.level]]
        return (*(f"{service}.{name}" for name in wanted), f"{service}.lines")

    def fits(self, line: LogLine) -> bool:
        """Whether a line is wanted; the text counts in the event and in the fields, without case."""
        if LEVELS[line.level] < LEVELS.get(self.level or "debug", 0):
            return False
        text = self.text.casefold()
        return not text or text in line.event.casefold() or text in _as_text(line).casefold()


def _as_text(line: LogLine) -> str:
    return json.dumps(line.fields, ensure_ascii=False, default=str)


class LostLines(Exception):
    """The connection to the broker went: what was said meanwhile will not come."""


class Following:
    """The lines of one pattern as they arrive, a message at a time."""

    def __init__(self, pattern: Pattern) -> None:
        self._pattern = pattern
        self._arrived: asyncio.Queue[Delivery | None] = asyncio.Queue()
        self._read: Delivery | None = None

    def take(self, delivery: Delivery) -> None:
        """One message of the queue."""
        self._arrived.put_nowait(delivery)

    def lost(self) -> None:
        """The queue is gone with its connection."""
        self._arrived.put_nowait(None)

    async def next(self) -> list[LogLine]:
        """The wanted lines of the next message, often none; what was returned before is settled only now.

        So a slow reader leaves its messages in its queue, and they are forgotten there. Raises LostLines.
        """
        if self._read is not None:
            self._read.ack()
            self._read = None
        delivery = self._read = await self._arrived.get()
        if delivery is None:
            raise LostLines
        return [line for line in _lines_of(delivery) if self._pattern.fits(line)]


def _lines_of(delivery: Delivery) -> Iterator[LogLine]:
    """Every line of a message, in the name of the account the broker vouches for."""
    sender = delivery.properties.user_id
    if not sender:
        return
    try:
        for frame in codec.decode_frames(delivery.body, delivery.routing_key, delivery.properties):
            shipment = _shipment.decode(frame.body)
            yield from (msgspec.structs.replace(line, service=sender) for line in shipment.lines)
            yield from (ended.line(sender) for ended in shipment.ended)
    except (codec.Malformed, msgspec.MsgspecError) as error:
        log.info("log_message_unreadable", sender=sender, error=str(error))


class LogTail:
    """Lets at most so many follow at a time; nobody who follows holds up anybody who logs."""

    def __init__(
        self, source: Source, *, most: int = MOST_LISTENERS, beat_seconds: float = BEAT_SECONDS
    ) -> None:
        self.beat_seconds = beat_seconds
        self._source = source
        self._most = most
        self._listeners = 0

    @property
    def is_full(self) -> bool:
        """Whether nobody else may follow now."""
        return self._listeners >= self._most

    @asynccontextmanager
    async def follow(self, pattern: Pattern) -> AsyncIterator[Following]:
        """A queue for as long as this lasts; raises TooMany, and Unavailable without a broker."""
        if self.is_full:
            raise TooMany(f"{self._most} follow the log here already.", retry_after=10)
        self._listeners += 1
        try:
            following = Following(pattern)
            queue = await self._open(pattern.keys, following)
            try:
                yield following
            finally:
                await queue.close()
        finally:
            self._listeners -= 1

    async def _open(self, keys: Iterable[str], following: Following) -> PrivateQueue:
        try:
            async with asyncio.timeout(5):
                return await self._source.follow_logs(
                    tuple(keys),
                    following.take,
                    most=MOST_MESSAGES,
                    prefetch=PREFETCH,
                    on_lost=following.lost,
                )
        except (NotPublished, TimeoutError) as error:
            raise Unavailable("The broker does not answer.") from error
