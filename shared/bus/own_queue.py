"""A queue for one request: streams always use one, with REPLY_QUEUE=request every call does."""

from __future__ import annotations

import asyncio

from shared.bus import codec
from shared.bus.codec import ReplyFrame
from shared.bus.link import Delivery, Link, NotPublished, PrivateQueue
from shared.bus.requests import ServiceFailed, Unavailable
from shared.bus.topology import STREAM_PARTS

HALF = STREAM_PARTS // 2
"""So many parts wait in the queue and as many here: its limit does not count what is delivered."""


class Lost(Unavailable):
    """The connection went, or nothing came in time."""


class OwnQueue:
    """A private queue as an async context and its parts in order of arrival."""

    def __init__(self, link: Link, seconds: float) -> None:
        self._link = link
        self._seconds = seconds
        self._parts: asyncio.Queue[Delivery | None] = asyncio.Queue()
        self._queue: PrivateQueue | None = None

    @property
    def name(self) -> str:
        assert self._queue is not None
        return self._queue.name

    async def __aenter__(self) -> OwnQueue:
        try:
            async with asyncio.timeout(self._seconds):
                self._queue = await self._link.open_private(
                    self._parts.put_nowait, most=HALF, prefetch=HALF, on_lost=self._lost
                )
        except TimeoutError as error:
            raise Lost("the broker does not answer") from error
        except NotPublished as error:
            raise Lost("the broker does not answer") from error
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._queue is not None:
            await self._queue.close()

    def _lost(self) -> None:
        self._parts.put_nowait(None)

    async def next(self, seconds: float, owner: str) -> ReplyFrame:
        """The next part, acknowledged only now: that is the back-pressure."""
        try:
            async with asyncio.timeout(seconds):
                delivery = await self._parts.get()
        except TimeoutError as error:
            raise Lost("no answer in time") from error
        if delivery is None:
            raise Lost("the connection to the broker was lost")
        delivery.ack()
        if delivery.properties.user_id != owner:
            raise ServiceFailed("somebody else answered")
        return codec.decode_replies(delivery.body, delivery.properties)[0]
