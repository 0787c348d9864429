"""The asking side: sends frames, pairs replies, repeats what may be lost, and never waits past a deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from itertools import count
from typing import Any, TypeVar

import msgspec
import structlog

from shared.bus import codec
from shared.bus.calls import GRACE_SECONDS, Pending, Submitting, Task, remaining_ms, why
from shared.bus.codec import Frame, ReplyFrame
from shared.bus.lanes import Lane, Lanes
from shared.bus.link import Delivery, Link, LinkDown, Nacked, Unroutable
from shared.bus.own_queue import Lost, OwnQueue
from shared.bus.pressure import Depth, Flow, Pressure
from shared.bus.requests import (
    Begun,
    Caller,
    Ended,
    NoSuchTopic,
    OutcomeUnknown,
    ServiceFailed,
    Unavailable,
)
from shared.bus.topology import EXCHANGE_OF_KIND
from shared.bus.verdict import STILL_RUNNING
from shared.contracts.base import Command, Message, Query, owner_of, reply_type
from shared.contracts.submissions import RefusalBody
from shared.errors import Refusal, TooMany

log = structlog.get_logger()
R = TypeVar("R")
AGAIN_SECONDS = 0.05
# One look at all deadlines instead of a timer per call; only what ends before the next look gets one.
SWEEP_SECONDS = 0.05


class BusRequester:
    """Asks over a link; `request_queues` gives every call a queue of its own (REPLY_QUEUE=request)."""

    def __init__(
        self, link: Link, *, request_queues: bool = False, clock: Callable[[], float] = time.time
    ) -> None:
        self._link = link
        self._lanes = Lanes(link)
        self._known_lanes: dict[tuple[str, str], Lane] = {}
        self._calls: dict[int, Pending] = {}
        self._submits: set[Submitting] = set()
        self._numbers = count(1)
        self._clock = clock
        self._request_queues = request_queues
        self._decoders: dict[type[Message], msgspec.msgpack.Decoder[Any]] = {}
        self._sweeping = False
        self._pressure = Pressure()
        self.late_replies = 0
        link.on_up(self._repeat_all)

    # -- the Requester protocol ------------------------------------------------------------------------

    async def ask(self, message: Command[R] | Query[R], caller: Caller) -> R:
        """Send and wait for the reply, at most `caller.seconds`; raises Refusal or CallFailed."""
        if self._request_queues:
            return await self._ask_on_own_queue(message, caller)
        answered: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        call = self.begin(message, caller, _into(answered))
        try:
            return await answered
        finally:
            call.cancel()

    def begin(self, message: Command[Any] | Query[Any], caller: Caller, ended: Ended) -> Begun:
        """As `ask`, without a task: `ended` is called with the reply or the error."""
        if self._request_queues:
            return Task(self._ask_on_own_queue(message, caller), ended)
        flow = self._admit(message, caller)
        frame = self._frame(message, caller, "wait")
        pending = self._calls[frame.call] = Pending(self, type(message), frame, flow, ended)
        flow.began()
        self._keep_sweeping()
        self._send(pending)
        return pending

    async def submit(self, message: Command[Any], caller: Caller) -> None:
        """Send without a deadline; return when the broker has it on disk, within `caller.seconds`."""
        accepted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        call = self.begin_submit(message, caller, _into(accepted))
        try:
            await accepted
        finally:
            call.cancel()

    def begin_submit(self, message: Command[Any], caller: Caller, ended: Ended) -> Begun:
        """As `submit`, without a task: `ended` is called with None or the error."""
        flow = self._pressure.admit(owner_of(message.topic), "queue")
        frame = self._frame(message, caller, "queued")
        until = self._clock() + caller.seconds
        submitting = Submitting(
            self._submits, flow, caller.seconds, ended, lambda error: self._insist(frame, until, error)
        )
        self._keep_sweeping()
        self._lanes.send(self._lane(frame, ""), codec.encode(frame), submitting.settled)
        return submitting

    async def stream(self, message: Query[R], caller: Caller) -> AsyncIterator[R]:
        """Yield the parts of a streamed reply; closing the iterator deletes the queue: the sender stops."""
        self._admit(message, caller)
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
                    if found is None:
                        self._pressure.missed(name)
                    else:
                        self._pressure.saw(name, *found, every_seconds)
            await asyncio.sleep(every_seconds)

    @property
    def depths(self) -> dict[str, Depth]:
        """The watched queues."""
        return self._pressure.depths

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
        publisher = delivery.properties.user_id
        for reply in replies:
            pending = self._calls.get(reply.call)
            if pending is None:
                self.late_replies += 1
            elif publisher != owner_of(pending.frame.topic):
                log.error("forged_reply", publisher=publisher, topic=pending.frame.topic)
            elif pending.sent > 1 and _is_running(reply):
                self.again_soon(pending)
            else:
                self._answer(pending, reply)

    def _answer(self, pending: Pending, reply: ReplyFrame) -> None:
        try:
            decoded = self._decode(pending.kind, reply)
        except Exception as error:
            pending.end(None, error)
        else:
            pending.end(decoded)

    def _decode(self, kind: type[Message], reply: ReplyFrame) -> Any:
        if reply.status != 200:
            raise _failure(reply)
        return self._decoder(kind).decode(reply.body)

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
            remaining_ms=remaining_ms(caller.seconds) if mode == "wait" else 0,
            sent_at=now_ms,
            born=now_ms,
            locale=caller.locale,
            client=caller.client,
        )

    def _lane(self, frame: Frame, reply_to: str) -> Lane:
        lane = self._known_lanes.get((frame.topic, reply_to))
        if lane is None:
            query = frame.kind == "query"
            lane = Lane(EXCHANGE_OF_KIND[frame.kind], frame.topic, reply_to, not query, query)
            if not reply_to or reply_to == self._link.reply_address:
                self._known_lanes[frame.topic, reply_to] = lane
        return lane

    def _send(self, pending: Pending) -> None:
        reply_to = self._link.reply_address
        if not reply_to:
            return  # sent by _repeat_all as soon as there is a connection
        pending.sent += 1
        frame = pending.frame
        self._lanes.send(
            self._lane(frame, reply_to), pending.encoded, pending.settled, remaining_ms=frame.remaining_ms
        )

    def forget(self, pending: Pending) -> None:
        """A call is over."""
        self._calls.pop(pending.frame.call, None)

    def again_soon(self, pending: Pending) -> None:
        """The same frame id once more: the inbox makes a second arrival harmless."""
        asyncio.get_running_loop().call_later(AGAIN_SECONDS, self._again, pending)

    def _again(self, pending: Pending) -> None:
        if not pending.over:
            self._send(pending)

    def _repeat_all(self) -> None:
        """A new connection has a new reply queue: replies to the old one are lost, so ask again."""
        self._known_lanes.clear()
        for pending in list(self._calls.values()):
            self._again(pending)

    def _keep_sweeping(self) -> None:
        if not self._sweeping:
            self._sweeping = True
            asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep)

    def _sweep(self) -> None:
        now, loop = time.monotonic(), asyncio.get_running_loop()
        soon = now + SWEEP_SECONDS
        calls: tuple[Pending | Submitting, ...] = (*self._calls.values(), *self._submits)
        for call in calls:
            if call.until <= soon:
                loop.call_later(max(call.until - now, 0), call.expire)
        self._pressure.turn(SWEEP_SECONDS)
        self._sweeping = False
        if self._calls or self._submits or not self._pressure.is_idle:
            self._keep_sweeping()

    def _admit(self, message: Message, caller: Caller) -> Flow:
        """Raises Unavailable when it would be too much; what the gateway itself must know is not asking."""
        is_asking = isinstance(message, Query) and caller.principal.kind != "service"
        return self._pressure.admit(owner_of(message.topic), "ask" if is_asking else "change")

    async def _insist(self, frame: Frame, until: float, error: BaseException) -> None:
        """Publish again what was not confirmed, until it is, or until it is clear how it ends."""
        left = False
        while True:
            if isinstance(error, Unroutable | Nacked):
                if not left:
                    raise Unavailable(why(error)) from error
            elif not isinstance(error, LinkDown):
                left = True
            if self._clock() + AGAIN_SECONDS >= until:
                raise OutcomeUnknown() if left else Unavailable("the broker does not answer")
            await asyncio.sleep(AGAIN_SECONDS)
            try:
                await self._publish_once(frame)
                return
            except Exception as failure:
                error = failure

    async def _publish_once(self, frame: Frame, reply_to: str = "") -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        settle = _into(done)
        self._lanes.send(
            self._lane(frame, reply_to),
            codec.encode(frame),
            lambda error: settle(None, error),
            remaining_ms=frame.remaining_ms,
        )
        await done

    # -- a queue for one request -----------------------------------------------------------------------

    async def _ask_on_own_queue(self, message: Command[R] | Query[R], caller: Caller) -> R:
        self._admit(message, caller)
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
                    answer: R = self._decode(type(message), reply)
                    return answer
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
            raise Unavailable(why(error)) from error
        except Exception as error:
            raise Lost(str(error)) from error


def _into(future: asyncio.Future[Any]) -> Ended:
    """Tells a future how a call ended."""

    def ended(reply: Any, error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(reply)
        else:
            future.set_exception(error)

    return ended


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
