"""The asking side: sends frames, pairs replies, repeats what may be lost, and never waits past a deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import Any, TypeVar

import msgspec
import structlog

from shared.bus import codec
from shared.bus.codec import Frame, ReplyFrame
from shared.bus.lanes import Lane, Lanes
from shared.bus.link import Delivery, Link, LinkDown, Nacked, NotPublished, Unroutable
from shared.bus.own_queue import Lost, OwnQueue
from shared.bus.requests import Caller, NoSuchTopic, OutcomeUnknown, ServiceFailed, Unavailable
from shared.bus.topology import EXCHANGE_OF_KIND, MOST_MESSAGES, SHED_AT
from shared.bus.verdict import STILL_RUNNING
from shared.contracts.base import Command, Message, Query, owner_of, reply_type
from shared.contracts.submissions import RefusalBody
from shared.errors import Refusal, TooMany

log = structlog.get_logger()
R = TypeVar("R")
# Beyond the deadline, for the 503 of a service that held the frame until then.
GRACE_SECONDS = 0.15
AGAIN_SECONDS = 0.05


class _Pending:
    """One call that waits for its reply."""

    __slots__ = ("frame", "future", "may_have_left", "sent")

    def __init__(self, frame: Frame, future: asyncio.Future[ReplyFrame]) -> None:
        self.frame = frame
        self.future = future
        self.may_have_left = False
        self.sent = 0


@dataclass
class Depth:
    """What a watched queue looked like last: messages waiting and consumers taking."""

    messages: int = 0
    consumers: int = 0
    present: bool = True


class BusRequester:
    """Asks over a link; `request_queues` gives every call a queue of its own (REPLY_QUEUE=request)."""

    def __init__(
        self, link: Link, *, request_queues: bool = False, clock: Callable[[], float] = time.time
    ) -> None:
        self._link = link
        self._lanes = Lanes(link)
        self._calls: dict[int, _Pending] = {}
        self._numbers = count(1)
        self._clock = clock
        self._request_queues = request_queues
        self._decoders: dict[type[Message], msgspec.msgpack.Decoder[Any]] = {}
        self.depths: dict[str, Depth] = {}
        self.late_replies = 0
        link.on_up(self._repeat_all)

    # -- the Requester protocol ------------------------------------------------------------------------

    async def ask(self, message: Command[R] | Query[R], caller: Caller) -> R:
        """Send and wait for the reply, at most `caller.seconds`; raises Refusal or CallFailed."""
        if self._request_queues:
            return await self._ask_on_own_queue(message, caller)
        self._shed(message)
        frame = self._frame(message, caller, "wait")
        loop = asyncio.get_running_loop()
        pending = _Pending(frame, loop.create_future())
        self._calls[frame.call] = pending
        timer = loop.call_later(caller.seconds + GRACE_SECONDS, self._expire, pending)
        try:
            self._send(pending)
            return self._decode(message, await pending.future)
        finally:
            timer.cancel()
            self._calls.pop(frame.call, None)

    async def submit(self, message: Command[Any], caller: Caller) -> None:
        """Send without a deadline; return when the broker has it on disk, within `caller.seconds`."""
        self._shed(message)
        frame = self._frame(message, caller, "queued")
        until = self._clock() + caller.seconds
        left = False
        while True:
            try:
                await self._publish_once(frame)
                return
            except (Unroutable, Nacked) as error:
                if not left:
                    raise Unavailable(_why(error)) from error
            except LinkDown:
                pass
            except Exception:
                left = True
            if self._clock() + AGAIN_SECONDS >= until:
                raise OutcomeUnknown() if left else Unavailable("the broker does not answer")
            await asyncio.sleep(AGAIN_SECONDS)

    async def stream(self, message: Query[R], caller: Caller) -> AsyncIterator[R]:
        """Yield the parts of a streamed reply; closing the iterator deletes the queue: the sender stops."""
        decoder = self._decoder(type(message))
        async with OwnQueue(self._link, caller.seconds) as own:
            frame = self._frame(message, caller, "wait")
            await self._publish_on(own, frame)
            expected = 0
            while True:
                reply = await own.next(caller.seconds + GRACE_SECONDS, owner_of(message.topic))
                if reply.status != 200:
                    raise _failure(reply)
                if reply.part < expected:
                    continue
                if reply.part > expected:
                    raise ServiceFailed("a part of the reply is missing")
                expected += 1
                if not reply.last or bytes(reply.body) != b"\xc0":
                    yield decoder.decode(reply.body)
                if reply.last:
                    return

    # -- watching the queues ---------------------------------------------------------------------------

    async def watch(self, queues: tuple[str, ...], every_seconds: float = 1.0) -> None:
        """Learn the depth and consumers of queues for ever: full ones are shed before they refuse."""
        while True:
            with suppress(Exception):
                for name, found in (await self._link.depths(queues)).items():
                    self.depths[name] = Depth(*found) if found else Depth(present=False)
            await asyncio.sleep(every_seconds)

    def waiting(self) -> int:
        """How many calls wait for a reply."""
        return len(self._calls)

    # -- replies ---------------------------------------------------------------------------------------

    def on_reply(self, delivery: Delivery) -> None:
        """Take a delivery of the reply queue."""
        delivery.ack()
        try:
            replies = codec.decode_replies(delivery.body, delivery.properties)
        except codec.Malformed:
            return
        for reply in replies:
            pending = self._calls.get(reply.call)
            if pending is None or pending.future.done():
                self.late_replies += 1
            elif delivery.properties.user_id != owner_of(pending.frame.topic):
                log.error("forged_reply", publisher=delivery.properties.user_id, topic=pending.frame.topic)
            elif pending.sent > 1 and _is_running(reply):
                self._again_soon(pending)
            else:
                pending.future.set_result(reply)

    def _decode(self, message: Command[R] | Query[R], reply: ReplyFrame) -> R:
        if reply.status != 200:
            raise _failure(reply)
        decoded: R = self._decoder(type(message)).decode(reply.body)
        return decoded

    def _decoder(self, kind: type[Message]) -> msgspec.msgpack.Decoder[Any]:
        decoder = self._decoders.get(kind)
        if decoder is None:
            decoder = self._decoders[kind] = msgspec.msgpack.Decoder(reply_type(kind))
        return decoder

    # -- sending ---------------------------------------------------------------------------------------

    def _frame(self, message: Message, caller: Caller, mode: codec.Mode) -> Frame:
        now_ms = int(self._clock() * 1000)
        return Frame(
            id=caller.id,
            topic=message.topic,
            kind="command" if isinstance(message, Command) else "query",
            body=codec.body_of(message),
            call=next(self._numbers),
            request_id=caller.request_id,
            traceparent=caller.traceparent,
            principal=caller.principal,
            mode=mode,
            remaining_ms=int(caller.seconds * 1000) if mode == "wait" else 0,
            sent_at=now_ms,
            born=now_ms,
            locale=caller.locale,
            client=caller.client,
        )

    def _lane(self, frame: Frame, reply_to: str) -> Lane:
        query = frame.kind == "query"
        return Lane(EXCHANGE_OF_KIND[frame.kind], frame.topic, reply_to, not query, query)

    def _send(self, pending: _Pending) -> None:
        reply_to = self._link.reply_address
        if not reply_to:
            return  # sent by _repeat_all as soon as there is a connection
        pending.sent += 1
        frame = pending.frame

        def settled(error: BaseException | None) -> None:
            if pending.future.done():
                return
            if error is None:
                pending.may_have_left = True
            elif isinstance(error, LinkDown):
                pass  # sent by _repeat_all as soon as there is a connection
            elif isinstance(error, NotPublished):
                if not pending.may_have_left:
                    pending.future.set_exception(Unavailable(_why(error)))
            else:
                pending.may_have_left = True
                self._again_soon(pending)

        self._lanes.send(
            self._lane(frame, reply_to), codec.encode(frame), settled, remaining_ms=frame.remaining_ms
        )

    def _again_soon(self, pending: _Pending) -> None:
        """The same frame id once more: the inbox makes a second arrival harmless."""
        asyncio.get_running_loop().call_later(AGAIN_SECONDS, self._again, pending)

    def _again(self, pending: _Pending) -> None:
        if not pending.future.done():
            self._send(pending)

    def _repeat_all(self) -> None:
        """A new connection has a new reply queue: replies to the old one are lost, so ask again."""
        for pending in list(self._calls.values()):
            self._again(pending)

    def _expire(self, pending: _Pending) -> None:
        if pending.future.done():
            return
        if pending.frame.kind == "query":
            pending.future.set_exception(Unavailable("no answer in time"))
        elif pending.may_have_left:
            pending.future.set_exception(OutcomeUnknown())
        else:
            pending.future.set_exception(Unavailable("the broker does not answer"))

    def _shed(self, message: Message) -> None:
        depth = self.depths.get(owner_of(message.topic))
        if depth and isinstance(message, Command) and depth.messages > SHED_AT * MOST_MESSAGES:
            raise Unavailable("the queue of this service is nearly full")

    async def _publish_once(self, frame: Frame, reply_to: str = "") -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def settled(error: BaseException | None) -> None:
            if done.done():
                return
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(error)

        self._lanes.send(
            self._lane(frame, reply_to), codec.encode(frame), settled, remaining_ms=frame.remaining_ms
        )
        await done

    # -- a queue for one request -----------------------------------------------------------------------

    async def _ask_on_own_queue(self, message: Command[R] | Query[R], caller: Caller) -> R:
        self._shed(message)
        until = self._clock() + caller.seconds
        sent = 0
        while True:
            seconds = max(0.05, until - self._clock())
            try:
                async with OwnQueue(self._link, seconds) as own:
                    frame = self._frame(message, caller, "wait")
                    frame = msgspec.structs.replace(frame, remaining_ms=int(seconds * 1000))
                    sent += 1
                    await self._publish_on(own, frame)
                    reply = await own.next(seconds + GRACE_SECONDS, owner_of(message.topic))
                    if sent > 1 and _is_running(reply):
                        raise Lost("our own first copy is still at work")
                    return self._decode(message, reply)
            except Lost as error:
                if self._clock() < until:
                    await asyncio.sleep(AGAIN_SECONDS)
                    continue
                if sent and isinstance(message, Command):
                    raise OutcomeUnknown() from error
                raise Unavailable("no answer in time") from error

    async def _publish_on(self, own: OwnQueue, frame: Frame) -> None:
        try:
            await self._publish_once(frame, own.name)
        except (Unroutable, Nacked) as error:
            raise Unavailable(_why(error)) from error
        except Exception as error:
            raise Lost(str(error)) from error


def _why(error: BaseException) -> str:
    if isinstance(error, Unroutable):
        return "no service takes this topic"
    if isinstance(error, Nacked):
        return "the queue of this service is full"
    return "the broker does not answer"


def _is_running(reply: ReplyFrame) -> bool:
    """Whether a frame met another copy of itself at work; when both are ours, the answer is on its way."""
    return reply.status == 409 and reply.refusal is not None and reply.refusal.code == STILL_RUNNING


def _failure(reply: ReplyFrame) -> Exception:
    refusal = reply.refusal or RefusalBody(status=reply.status, code="internal")
    if reply.status == 503:
        return Unavailable(refusal.detail)
    if reply.status == 502:
        return NoSuchTopic(refusal.detail)
    if reply.status >= 500:
        return ServiceFailed(refusal.detail)
    if reply.status == 429:
        return TooMany(refusal.detail, retry_after=refusal.retry_after or 1, code=refusal.code)
    return Refusal(refusal.detail, code=refusal.code, errors=refusal.errors, status=reply.status)
