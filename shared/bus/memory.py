"""A broker in memory for tests: exchanges, queues, limits, expiry and returns as RabbitMQ has them."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any
from uuid import UUID

import msgspec

from shared.bus.codec import Properties
from shared.bus.inbox import BLANK_PACKED, AlreadyAnswered, Entry
from shared.bus.link import (
    Delivery,
    LinkDown,
    Nacked,
    NotPublished,
    OnDelivery,
    OnLost,
    Outgoing,
    Settled,
    Unroutable,
    published,
)
from shared.bus.routes import Guess, Statement
from shared.bus.topology import EVENTS, LOGS, REPLIES, TOPIC_EXCHANGES, Queue


@dataclass(eq=False)
class _Stored:
    """A message in a queue."""

    message: Outgoing
    user_id: str
    redelivered: bool = False


@dataclass(eq=False)
class _Consumer:
    """A consumer with its prefetch; `link` so that losing the link gives its messages back."""

    link: MemoryLink
    on_delivery: OnDelivery
    prefetch: int
    unsettled: dict[int, _Stored] = field(default_factory=dict)


class _Queue:
    """One queue: what is ready, who takes, and its limits."""

    def __init__(self, name: str, arguments: Mapping[str, Any]) -> None:
        self.name = name
        self.arguments = arguments
        self.ready: deque[_Stored] = deque()
        self.consumers: list[_Consumer] = []

    def full(self) -> bool:
        """Whether the next message exceeds the limit."""
        most: int = self.arguments.get("x-max-length", 1 << 30)
        return len(self.ready) >= most


class MemoryBroker:
    """Exchanges and queues in this process."""

    def __init__(self, queues: Iterable[Queue]) -> None:
        self.queues: dict[str, _Queue] = {}
        self.bindings: list[tuple[str, re.Pattern[str], str]] = []
        self._numbers = count(1)
        self._timers: set[asyncio.TimerHandle] = set()
        for queue in queues:
            self.declare(queue)

    def link(self, account: str) -> MemoryLink:
        """A connection under an account."""
        return MemoryLink(self, account)

    def close(self) -> None:
        """Forget the timers of messages that expire."""
        for timer in self._timers:
            timer.cancel()

    def declare(self, queue: Queue) -> None:
        """Make a queue and its bindings."""
        self.queues[queue.name] = _Queue(queue.name, queue.arguments)
        for exchange, pattern in queue.bindings:
            self.bind(exchange, pattern, queue.name)

    def bind(self, exchange: str, pattern: str, queue: str) -> None:
        """Bind with a topic pattern, or a plain key on the replies exchange."""
        self.bindings.append((exchange, _topic_pattern(pattern), queue))

    def delete(self, name: str) -> None:
        """Delete a queue with its bindings."""
        self.queues.pop(name, None)
        self.bindings = [binding for binding in self.bindings if binding[2] != name]

    def messages(self, queue: str) -> list[Outgoing]:
        """What is ready in a queue."""
        return [stored.message for stored in self.queues[queue].ready]

    def publish(self, message: Outgoing, user_id: str) -> None:
        """Route as a broker with confirms does; raises Unroutable (when mandatory) or Nacked."""
        if message.exchange not in (*TOPIC_EXCHANGES, REPLIES):
            raise Unroutable(f"no exchange {message.exchange}")
        targets = self._route(message)
        if not targets:
            if message.mandatory:
                raise Unroutable(message.key)
            return
        refused = False
        for queue in targets:
            refused |= not self._put(queue, _Stored(message, user_id))
        if refused:
            raise Nacked(message.key)

    def _route(self, message: Outgoing) -> list[_Queue]:
        names = {
            name
            for exchange, pattern, name in self.bindings
            if exchange == message.exchange and pattern.fullmatch(message.key)
        }
        return [self.queues[name] for name in sorted(names) if name in self.queues]

    def _put(self, queue: _Queue, stored: _Stored) -> bool:
        if queue.full():
            if queue.arguments.get("x-overflow") == "reject-publish":
                return False
            self._dead_letter(queue, queue.ready.popleft())
        queue.ready.append(stored)
        expires = min(
            milliseconds
            for milliseconds in (
                stored.message.expiration_ms or 1 << 40,
                queue.arguments.get("x-message-ttl", 1 << 40),
            )
        )
        if expires < 1 << 40:
            timer = asyncio.get_running_loop().call_later(expires / 1000, self._expire, queue, stored)
            self._timers.add(timer)
        self.deliver(queue)
        return True

    def _expire(self, queue: _Queue, stored: _Stored) -> None:
        if stored in queue.ready:
            queue.ready.remove(stored)
            self._dead_letter(queue, stored)

    def _dead_letter(self, queue: _Queue, stored: _Stored) -> None:
        exchange = queue.arguments.get("x-dead-letter-exchange")
        if not exchange:
            return
        key = queue.arguments.get("x-dead-letter-routing-key", stored.message.key)
        message = replace(stored.message, exchange=exchange, key=key, expiration_ms=0)
        for target in self._route(message):
            self._put(target, _Stored(message, stored.user_id))

    def deliver(self, queue: _Queue) -> None:
        """Hand ready messages to consumers that have room, in turn."""
        while queue.ready:
            free = [c for c in queue.consumers if len(c.unsettled) < c.prefetch]
            if not free:
                return
            consumer = free[0]
            queue.consumers.remove(consumer)
            queue.consumers.append(consumer)
            stored = queue.ready.popleft()
            tag = next(self._numbers)
            consumer.unsettled[tag] = stored
            delivery = self._delivery(queue, consumer, tag, stored)
            asyncio.get_running_loop().call_soon(consumer.on_delivery, delivery)

    def give_back(self, queue: _Queue, consumer: _Consumer, tags: Sequence[int]) -> None:
        """Put unsettled messages back at the head, marked as delivered before."""
        for tag in sorted(tags, reverse=True):
            stored = consumer.unsettled.pop(tag, None)
            if stored is not None:
                stored.redelivered = True
                queue.ready.appendleft(stored)
        self.deliver(queue)

    def _delivery(self, queue: _Queue, consumer: _Consumer, tag: int, stored: _Stored) -> Delivery:
        def settle(number: int, give_back: bool) -> None:
            if give_back:
                self.give_back(queue, consumer, [number])
            elif consumer.unsettled.pop(number, None) is not None:
                self.deliver(queue)

        message = stored.message
        properties = Properties(
            content_type=message.content_type,
            type=message.type,
            message_id=str(message.headers.get("message_id", tag)),
            correlation_id=message.correlation_id,
            reply_to=message.reply_to,
            user_id=stored.user_id,
            headers=message.headers,
        )
        address = message.exchange, message.key
        return Delivery(tag, message.body, *address, stored.redelivered, properties, settle)


@dataclass(eq=False)
class MemorySubscription:
    """A consumer on a queue."""

    broker: MemoryBroker
    queue: _Queue
    consumer: _Consumer

    async def cancel(self) -> None:
        """Take no more."""
        if self.consumer in self.queue.consumers:
            self.queue.consumers.remove(self.consumer)

    def lose(self) -> None:
        """As when the connection breaks: what was unsettled is given back."""
        if self.consumer in self.queue.consumers:
            self.queue.consumers.remove(self.consumer)
        self.broker.give_back(self.queue, self.consumer, list(self.consumer.unsettled))


@dataclass(eq=False)
class MemoryPrivateQueue:
    """A queue of one link."""

    broker: MemoryBroker
    name: str

    async def close(self) -> None:
        """Delete it."""
        self.broker.delete(self.name)


class MemoryLink:
    """A connection to the broker in memory; `cut` and `mend` break and restore it."""

    def __init__(self, broker: MemoryBroker, account: str) -> None:
        self.broker = broker
        self.account = account
        self.up = True
        self._callbacks: list[Callable[[], None]] = []
        self._lost: list[Callable[[], None]] = []
        self._subscriptions: list[MemorySubscription] = []
        self._reply: tuple[OnDelivery, str] | None = None
        self._private: list[Callable[[], None]] = []

    @property
    def can_send(self) -> bool:
        """Whether the connection is there."""
        return self.up

    @property
    def reply_address(self) -> str:
        """The name of the reply queue."""
        return self._reply[1] if self._reply and self.up else ""

    def post(self, message: Outgoing, settled: Settled) -> None:
        """Publish with a confirm, on the next turn of the loop."""
        asyncio.get_running_loop().call_soon(self._publish, message, settled)

    def _publish(self, message: Outgoing, settled: Settled) -> None:
        error: NotPublished | None = None
        try:
            if not self.up:
                raise LinkDown("cut")
            self.broker.publish(message, self.account)
        except NotPublished as failure:
            error = failure
        settled(error)

    async def publish(self, message: Outgoing) -> None:
        """Publish with a confirm."""
        await published(self, message)

    def send(self, message: Outgoing) -> bool:
        """Publish without a confirm."""
        if self.up:
            self.broker.publish(replace(message, mandatory=False), self.account)
        return self.up

    async def consume(self, queue: str, on_delivery: OnDelivery, *, prefetch: int) -> MemorySubscription:
        """Take from a queue."""
        taken = self.broker.queues[queue]
        consumer = _Consumer(self, on_delivery, prefetch)
        taken.consumers.append(consumer)
        subscription = MemorySubscription(self.broker, taken, consumer)
        self._subscriptions.append(subscription)
        self.broker.deliver(taken)
        return subscription

    async def open_replies(self, on_delivery: OnDelivery) -> None:
        """The queue for one-shot replies."""
        self._reply = (on_delivery, self._declare_private(1 << 30, (REPLIES,)))
        await self.consume(self._reply[1], on_delivery, prefetch=1_000)

    async def open_private(
        self, on_delivery: OnDelivery, *, most: int, prefetch: int, on_lost: Callable[[], None]
    ) -> MemoryPrivateQueue:
        """A queue for one request."""
        if not self.up:
            raise LinkDown("cut")
        name = self._declare_private(most, (REPLIES,))
        self._private.append(on_lost)
        await self.consume(name, on_delivery, prefetch=prefetch)
        return MemoryPrivateQueue(self.broker, name)

    async def follow_logs(
        self, keys: tuple[str, ...], on_delivery: OnDelivery, *, most: int, prefetch: int, on_lost: OnLost
    ) -> MemoryPrivateQueue:
        """A queue for log messages."""
        if not self.up:
            raise LinkDown("cut")
        name = f"{self.account}.logs-{next(self.broker._numbers)}"
        bindings = tuple((LOGS, key) for key in keys)
        self.broker.declare(Queue(name, {"x-max-length": most}, bindings))
        self._private.append(on_lost)
        await self.consume(name, on_delivery, prefetch=prefetch)
        return MemoryPrivateQueue(self.broker, name)

    async def hear(self, keys: tuple[str, ...], on_delivery: OnDelivery, on_lost: Callable[[], None]) -> None:
        """Listen to live events."""
        name = f"{self.account}.live-{next(self.broker._numbers)}"
        self.broker.declare(Queue(name, {}, tuple((EVENTS, key) for key in keys)))
        self._lost.append(on_lost)
        await self.consume(name, on_delivery, prefetch=1_000)

    def on_up(self, callback: Callable[[], None]) -> None:
        """Call back when the link is up again."""
        self._callbacks.append(callback)

    async def depths(self, queues: tuple[str, ...]) -> dict[str, tuple[int, int] | None]:
        """Messages ready and consumers of each queue."""
        found = {name: self.broker.queues.get(name) for name in queues}
        return {
            name: (len(queue.ready), len(queue.consumers)) if queue else None for name, queue in found.items()
        }

    def _declare_private(self, most: int, exchanges: tuple[str, ...]) -> str:
        name = f"{self.account}.{next(self.broker._numbers)}"
        arguments = {"x-max-length": most, "x-overflow": "reject-publish"}
        self.broker.declare(Queue(name, arguments, tuple((exchange, name) for exchange in exchanges)))
        return name

    def cut(self) -> None:
        """Break the connection: private queues vanish, unsettled messages go back."""
        self.up = False
        if self._reply:
            self.broker.delete(self._reply[1])
        for subscription in self._subscriptions:
            subscription.lose()
        for lost in (*self._lost, *self._private):
            lost()
        self._private.clear()

    async def mend(self) -> None:
        """Restore the connection: consumers come back, the reply queue under a fresh name."""
        self.up = True
        subscriptions, self._subscriptions = self._subscriptions, []
        for subscription in subscriptions:
            if subscription.queue.name in self.broker.queues:
                old = subscription.consumer
                await self.consume(subscription.queue.name, old.on_delivery, prefetch=old.prefetch)
        if self._reply:
            await self.open_replies(self._reply[0])
        for callback in self._callbacks:
            callback()


class MemoryInbox:
    """An inbox and a list of effects that commit together; `fault` lets a test break it where it likes."""

    def __init__(self) -> None:
        self.rows: dict[UUID, Entry] = {}
        self.effects: list[Any] = []
        self.attempts: dict[UUID, int] = {}
        self.locked: set[UUID] = set()
        self.is_away = False

    @property
    def pool(self) -> MemoryInbox:
        """Queries read the effects."""
        return self

    @asynccontextmanager
    async def unit(self) -> AsyncIterator[MemoryUnit]:
        """Stage, then commit all or nothing."""
        await self.probe()
        unit = MemoryUnit(self)
        try:
            yield unit
            await self.probe()
            if any(entry.id in self.rows for entry in unit.entries):
                raise AlreadyAnswered
            self.rows.update({entry.id: entry for entry in unit.entries})
            self.effects.extend(unit.db)
        finally:
            self.locked -= unit.mine

    async def at_once(self, guess: Guess, entries: Sequence[Entry]) -> bool:
        """Knows no SQL: every guess is wrong."""
        return False

    async def with_row(self, statement: Statement[Any], entry: Entry) -> bytes:
        """Knows no SQL: the arguments are the effects."""
        async with self.unit() as unit:
            number = await unit.carry_out(statement)
            reply = entry.reply.replace(BLANK_PACKED, b"\xce" + number.to_bytes(4, "big"))
            await unit.record([msgspec.structs.replace(entry, reply=reply)])
        return reply

    async def find(self, ids: Sequence[UUID]) -> Mapping[UUID, Entry]:
        """The rows there are."""
        await self.probe()
        return {name: self.rows[name] for name in ids if name in self.rows}

    async def keep(self, entries: Sequence[Entry]) -> set[UUID]:
        """Add rows by themselves."""
        await self.probe()
        new = {entry.id: entry for entry in entries if entry.id not in self.rows}
        self.rows.update(new)
        return set(new)

    async def count_attempt(self, frame_id: UUID) -> int:
        """Count one more run."""
        await self.probe()
        self.attempts[frame_id] = self.attempts.get(frame_id, 0) + 1
        return self.attempts[frame_id]

    async def probe(self) -> None:
        """Raise while away."""
        if self.is_away:
            raise ConnectionError("the database is away")

    def away(self, error: BaseException) -> bool:
        """Whether an error means away."""
        return isinstance(error, ConnectionError)

    def again(self, error: BaseException) -> bool:
        """Nothing here deadlocks."""
        return False


class MemoryUnit:
    """One transaction: `db` is a list of effects."""

    def __init__(self, inbox: MemoryInbox) -> None:
        self._inbox = inbox
        self.db: list[Any] = []
        self.entries: list[Entry] = []
        self.mine: set[UUID] = set()

    async def lock(self, ids: Sequence[UUID]) -> set[UUID]:
        """Lock what is free."""
        free = {name for name in ids if name not in self._inbox.locked}
        self._inbox.locked |= free
        self.mine |= free
        return free

    async def carry_out(self, statement: Statement[Any]) -> int:
        """The arguments are the effects, and their number that of all."""
        self.db.extend(statement.arguments)
        return len(self._inbox.effects) + len(self.db)

    async def record(self, entries: Sequence[Entry]) -> None:
        """Stage the rows."""
        if any(entry.id in self._inbox.rows for entry in entries):
            raise AlreadyAnswered
        self.entries.extend(entries)


def _topic_pattern(pattern: str) -> re.Pattern[str]:
    words = []
    for word in pattern.split("."):
        words.append({"*": r"[^.]+", "#": r".*"}.get(word, re.escape(word)))
    return re.compile(r"\.".join(words).replace(r"\..*", r"(?:\..*)?").replace(r".*\.", r"(?:.*\.)?"))
