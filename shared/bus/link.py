"""What the bus needs of a broker, so that RabbitMQ and memory can stand behind the same code."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from shared.bus.codec import MSGPACK, Properties


@dataclass(slots=True)
class Outgoing:
    """One AMQP message to publish; `expiration_ms` 0 is none; `user_id` is set by the link.

    Not to be changed once posted (frozen, it would take five times as long to make).
    """

    exchange: str
    key: str
    body: bytes
    persistent: bool = True
    mandatory: bool = True
    reply_to: str = ""
    correlation_id: str = ""
    content_type: str = MSGPACK
    type: str = ""
    expiration_ms: int = 0
    headers: Mapping[str, Any] = field(default_factory=dict)


class NotPublished(Exception):
    """The message is in no queue."""


class Unroutable(NotPublished):
    """No queue is bound for the key: for a reply, the requester is gone."""


class Nacked(NotPublished):
    """A queue is full."""


class LinkDown(NotPublished):
    """There is no connection, so nothing was sent."""


class PublishUnknown(Exception):
    """Sent, and no confirm came in time: it may be in the queue, now or later."""


class Delivery(msgspec.Struct, gc=False, eq=False):
    """One AMQP message taken from a queue; `settle` is told its number and whether it is given back."""

    number: int
    body: bytes
    exchange: str
    routing_key: str
    redelivered: bool
    properties: Properties
    settle: Callable[[int, bool], None]

    def ack(self) -> None:
        """Settle it, once; after a reconnect this does nothing, the broker delivers it again."""
        self.settle(self.number, False)

    def requeue(self) -> None:
        """Give it back."""
        self.settle(self.number, True)


OnDelivery = Callable[[Delivery], None]
OnLost = Callable[[], None]
Settled = Callable[[BaseException | None], None]


class Subscription(Protocol):
    """A consumer on a queue; the link restores it after every reconnect until it is cancelled."""

    async def cancel(self) -> None:
        """Take no more; what was delivered stays unsettled."""


class PrivateQueue(Protocol):
    """A queue of this connection alone, bound to the replies exchange under its own name."""

    name: str

    async def close(self) -> None:
        """Delete it: whoever still publishes to it is told that nobody is there."""


class Link(Protocol):
    """A connection to the broker under one account."""

    account: str

    @property
    def up(self) -> bool:
        """Whether publishing and consuming both work now."""

    @property
    def can_send(self) -> bool:
        """Whether `send` has a connection now."""

    @property
    def reply_address(self) -> str:
        """The name of this connection's reply queue, fresh at every connect; empty while there is none."""

    def post(self, message: Outgoing, settled: Settled) -> None:
        """Publish; `settled` is called once, later, never from inside: None when confirmed, else why not.

        Unroutable, Nacked and LinkDown: it is in no queue. PublishUnknown: the connection was lost, or
        no confirm came within two seconds. While the socket takes no more, messages wait in the link.
        """

    async def publish(self, message: Outgoing) -> None:
        """Return when confirmed; raises what `post` tells."""

    def send(self, message: Outgoing) -> bool:
        """Publish without a confirm (logs); False when there is no connection or it takes no more."""

    async def consume(self, queue: str, on_delivery: OnDelivery, *, prefetch: int) -> Subscription:
        """Take from a queue."""

    async def open_private(
        self, on_delivery: OnDelivery, *, most: int, prefetch: int, on_lost: Callable[[], None]
    ) -> PrivateQueue:
        """A queue for one request that holds at most `most` messages and then refuses more."""

    async def follow_logs(
        self, keys: tuple[str, ...], on_delivery: OnDelivery, *, most: int, prefetch: int, on_lost: OnLost
    ) -> PrivateQueue:
        """A queue for log messages with these keys; it forgets the oldest when it holds `most`."""

    async def hear(self, keys: tuple[str, ...], on_delivery: OnDelivery, on_lost: Callable[[], None]) -> None:
        """Listen to live events on a private queue; `on_lost` is called when some may have been missed."""

    def on_up(self, callback: Callable[[], None]) -> None:
        """Call back whenever the link is up again."""

    async def depths(self, queues: tuple[str, ...]) -> dict[str, tuple[int, int] | None]:
        """Messages ready and consumers of each queue; None for one that is not there."""


async def published(link: Link, message: Outgoing) -> None:
    """Post and wait for what `settled` is told."""
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def settled(error: BaseException | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    link.post(message, settled)
    await done
