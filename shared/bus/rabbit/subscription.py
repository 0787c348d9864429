"""A consumer that comes back: on a queue, with a channel of its own."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING

import structlog
from aio_pika.abc import AbstractConnection
from aiormq.abc import ArgumentsType
from aiormq.channel import Channel
from aiormq.exceptions import ChannelNotFoundEntity

from shared.bus.amqp import Taker
from shared.bus.link import OnDelivery
from shared.bus.rabbit.connecting import (
    BROKEN,
    HEARTBEAT_SECONDS,
    SETUP_SECONDS,
    open_channel,
    said_plainly,
    start_consuming,
)

if TYPE_CHECKING:
    from shared.bus.rabbit import RabbitLink

log = structlog.get_logger()

# The broker looks twice in each interval whether something came, and ends a connection after two misses.
FORGOTTEN_SECONDS = 4.0 * HEARTBEAT_SECONDS


class RabbitSubscription:
    """A consumer with a channel of its own, so that what happens to one queue happens to it alone.

    Where a connection ended without a word, the broker goes on handing out to its consumer until it misses
    the heartbeats, and nobody works on that. So who comes back is served before who was there, by consumer
    priority, and steps back among the others when the broker must have noticed.
    """

    def __init__(self, link: RabbitLink, queue: str, on_delivery: OnDelivery, prefetch: int) -> None:
        self.queue = queue
        self.channel: Channel | None = None
        self._link = link
        self._on_delivery = on_delivery
        self._prefetch = prefetch
        self._taker: Taker | None = None
        self._tag = ""
        self._next_priority = 0
        self._ahead_until = 0.0
        self._cancelled = False
        self._lock = asyncio.Lock()

    @property
    def attached(self) -> bool:
        """Whether the broker has our consumer."""
        return self.channel is not None and not self.channel.is_closed and self._tag in self.channel.consumers

    async def keep(self, connection: AbstractConnection) -> None:
        """Consume, if not yet; a queue that is not there is said and tried again later."""
        async with self._lock:
            try:
                if self._cancelled:
                    return
                if not self.attached:
                    await self._attach(connection)
                elif self._ahead_until and asyncio.get_running_loop().time() >= self._ahead_until:
                    await self._step_back()
            except ChannelNotFoundEntity:
                log.error("queue_missing", queue=self.queue)

    async def _attach(self, connection: AbstractConnection) -> None:
        channel = await open_channel(connection, confirms=False)
        await channel.basic_qos(prefetch_count=self._prefetch)
        taker = self._link.taker(connection, channel, patient=True)
        await self._take(channel, taker, self._next_priority)
        self.channel, self._taker = channel, taker
        if self._next_priority:
            self._ahead_until = asyncio.get_running_loop().time() + self._link.forgotten_seconds
        self._next_priority += 1
        if self._cancelled:
            await self._end(channel, self._tag)

    async def _step_back(self) -> None:
        """Take under another name as everybody does, and then no more under the old one."""
        channel, taker, before = self.channel, self._taker, self._tag
        if channel is None or taker is None:
            return
        self._ahead_until, self._next_priority = 0.0, 1
        await self._take(channel, taker, 0)
        await self._end(channel, before)
        if self._cancelled:
            await self._end(channel, self._tag)

    async def _take(self, channel: Channel, taker: Taker, priority: int) -> None:
        arguments: ArgumentsType | None = {"x-priority": priority} if priority else None
        self._tag = f"{self._link.account}.{uuid.uuid4().hex}"
        await start_consuming(taker, channel, self.queue, self._tag, self._on_delivery, arguments=arguments)

    async def cancel(self) -> None:
        """Take no more; what was delivered can still be settled."""
        self._cancelled = True
        self._link.forget(self)
        if self.attached and self.channel is not None:
            await self._end(self.channel, self._tag)

    async def _end(self, channel: Channel, tag: str) -> None:
        with suppress(*BROKEN), said_plainly():
            await channel.basic_cancel(tag, timeout=SETUP_SECONDS)
