"""Carries out verdicts: replies, events, waits, dead letters, and the ack when all is confirmed."""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Callable, Coroutine, Sequence
from functools import lru_cache
from typing import Any

import msgspec
import structlog

from shared.bus import codec
from shared.bus.codec import JSON, Frame, ReplyFrame
from shared.bus.lanes import Lane, Lanes
from shared.bus.link import Delivery, Link, Outgoing, Unroutable
from shared.bus.topology import DEAD, EVENTS, LOGS, LONG, REPLIES, SHORT, WAIT
from shared.bus.verdict import Broker, Ending, Verdict
from shared.contracts.base import Event, Principal
from shared.contracts.submissions import RefusalBody
from shared.errors import Refusal, TooMany
from shared.logs import local_only

log = structlog.get_logger()

AGAIN_SECONDS = 0.2
REPLY_TRIES = 25
MOST_LANES = 1_000
TRACEBACK_CHARACTERS = 8_000


class Taken(msgspec.Struct, eq=False):
    """A delivery, acked or given back with the last of what is open.

    `open` counts its frames that have not ended, and what was said about the others and is not confirmed.
    """

    delivery: Delivery
    open: int = 0
    give_back: bool = False

    def settle(self) -> None:
        """One frame has ended, or one more message about it is confirmed."""
        self.open -= 1
        if self.open == 0:
            if self.give_back:
                self.delivery.requeue()
            else:
                self.delivery.ack()


class Work(msgspec.Struct, eq=False):
    """One frame on its way through the service; `repeats` are copies of it that arrived meanwhile."""

    frame: Frame
    taken: Taken
    maybe_committed: bool = False
    repeats: list[Work] = []


Announcement = tuple[str, bytes]


class Outcome(msgspec.Struct, frozen=True):
    """How one frame ended, as data: what is replied, announced, and told to the broker.

    `events` are the encoded frames as one list, as the inbox keeps them; `announced` the same frames one
    by one with their topics, when they were made just now.
    """

    ending: Ending
    reply: bytes = b"\xc0"
    refusal: RefusalBody | None = None
    events: bytes = b""
    error: BaseException | None = None
    retry_after: float = 0.0
    announced: Sequence[Announcement] = ()
    again: bool = False
    """Read from the inbox: nothing was done this time."""


def refusal_of(error: Refusal) -> RefusalBody:
    """A refusal as it crosses the wire."""
    retry_after = error.retry_after if isinstance(error, TooMany) else 0
    return RefusalBody(
        status=error.status,
        code=error.code,
        detail=error.detail,
        errors=error.errors,
        retry_after=retry_after,
    )


def encode_events(frame: Frame, service: str, events: Sequence[Event], now_ms: int) -> list[Announcement]:
    """A command's events as frames; their ids follow from the command's."""
    principal = _service_principal(service, frame.principal.project)
    return [
        (
            event.topic,
            codec.encode(
                Frame(
                    id=codec.event_id(frame.id, index),
                    topic=event.topic,
                    kind="event",
                    body=codec.body_of(event),
                    request_id=frame.request_id,
                    traceparent=frame.traceparent,
                    principal=principal,
                    born=now_ms,
                )
            ),
        )
        for index, event in enumerate(events)
    ]


@lru_cache(maxsize=1_000)
def _service_principal(service: str, project: str) -> Principal:
    return Principal(kind="service", id=service, project=project)


class _Topic(msgspec.Struct, frozen=True):
    """All that has to be known of an event's frame to announce it again."""

    topic: str


_events_decoder = msgspec.msgpack.Decoder(list[msgspec.Raw])
_topic_decoder = msgspec.msgpack.Decoder(_Topic)


def announcements(events: bytes) -> list[Announcement]:
    """The events an inbox row keeps, one by one."""
    return [(_topic_decoder.decode(each).topic, bytes(each)) for each in _events_decoder.decode(events)]


class Endings:
    """Ends frames for one service over one link."""

    def __init__(
        self, service: str, link: Link, *, short_wait: float, clock: Callable[[], float] = time.time
    ) -> None:
        self._service = service
        self._link = link
        self._short_wait = short_wait
        self._lanes = Lanes(link)
        self._reply_lanes: dict[str, Lane] = {}
        self._event_lanes: dict[str, Lane] = {}
        self._clock = clock
        self._tasks: set[asyncio.Task[None]] = set()

    def carry_out(self, work: Work, outcome: Outcome, verdict: Verdict) -> None:
        """Do what the verdict says for a frame and, once it is done at the broker, settle its delivery."""
        if verdict.broker is Broker.ACK:
            self._finish(work, outcome, verdict.status)
        elif verdict.broker is Broker.REQUEUE:
            work.taken.give_back = True
            work.taken.settle()
        elif verdict.broker is Broker.WAIT:
            self._spawn(self._wait(work, verdict.wait_seconds))
        elif verdict.broker is Broker.DEAD:
            self._spawn(self._bury(work, outcome, verdict))
        else:
            raise ValueError("a held frame has not ended")

    async def idle(self) -> None:
        """Return when everything said so far has been confirmed."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))
        await self._lanes.idle()

    def reply(self, work: Work, status: int, outcome: Outcome) -> None:
        """Answer without waiting for anything; used alone for a frame whose waiter must hear at once."""
        self._reply(work, status, outcome, lambda: None)

    # -- the four ends ---------------------------------------------------------------------------------

    def _finish(self, work: Work, outcome: Outcome, status: int) -> None:
        """Reply at once and announce in parallel; the frame is settled when all of it is confirmed."""
        taken = work.taken
        announced = outcome.announced
        if outcome.events and not announced:
            announced = announcements(outcome.events)
        taken.open += len(announced)
        if status:
            self._reply(work, status, outcome, taken.settle)
        else:
            taken.settle()
        for topic, encoded in announced:
            self._announce(topic, encoded, taken.settle)

    async def _wait(self, work: Work, seconds: float) -> None:
        name = SHORT if seconds <= self._short_wait else LONG
        frame = msgspec.structs.replace(work.frame, attempt=work.frame.attempt + 1)
        properties = work.taken.delivery.properties
        message = Outgoing(
            WAIT,
            f"{self._service}.{name}",
            codec.join([codec.encode(frame)]),
            reply_to=properties.reply_to if frame.mode == "wait" else "",
        )
        await self._publish_until_confirmed(message)
        work.taken.settle()

    async def _bury(self, work: Work, outcome: Outcome, verdict: Verdict) -> None:
        error = outcome.error
        with local_only(work.frame.kind == "log"):
            log.error(
                "frame_dead_lettered", topic=work.frame.topic, reason=outcome.ending.value, exc_info=error
            )
            if verdict.status:
                self.reply(work, verdict.status, outcome)
            await self._publish_until_confirmed(
                self._dead_letter(codec.join([codec.encode(work.frame)]), outcome.ending, error)
            )
        work.taken.settle()

    async def bury_delivery(self, taken: Taken, ending: Ending, error: BaseException) -> None:
        """A delivery that is not a list of frames goes to the dead letters as it came."""
        delivery = taken.delivery
        kind = delivery.properties.content_type
        with local_only(delivery.exchange == LOGS):
            log.error("delivery_dead_lettered", reason=ending.value, exc_info=error)
            await self._publish_until_confirmed(self._dead_letter(delivery.body, ending, error, kind))
        delivery.ack()

    def _dead_letter(
        self, body: bytes, ending: Ending, error: BaseException | None, content_type: str = codec.MSGPACK
    ) -> Outgoing:
        lines = "".join(traceback.format_exception(error)) if error else ""
        headers: dict[str, Any] = {
            "reason": ending.value,
            "error": f"{type(error).__name__}: {error}"[:1_000] if error else "",
            "traceback": lines[-TRACEBACK_CHARACTERS:],
            "service": self._service,
            "failed_at_ms": int(self._clock() * 1000),
        }
        return Outgoing(DEAD, self._service, body, content_type=content_type, headers=headers)

    # -- saying things ---------------------------------------------------------------------------------

    def _reply(self, work: Work, status: int, outcome: Outcome, done: Callable[[], None]) -> None:
        properties = work.taken.delivery.properties
        if not properties.reply_to:
            done()
            return
        frame = work.frame
        reply = ReplyFrame(
            id=frame.id,
            call=frame.call,
            status=status,
            body=msgspec.Raw(outcome.reply),
            refusal=outcome.refusal or (RefusalBody(status=status, code="") if status != 200 else None),
        )
        if properties.content_type == JSON:
            self._spawn(self._reply_json(reply, properties, done))
            return
        self._send_reply(self._lane_to(properties.reply_to), codec.encode(reply), done, REPLY_TRIES)

    def _lane_to(self, reply_to: str) -> Lane:
        lane = self._reply_lanes.get(reply_to)
        if lane is None:
            if len(self._reply_lanes) >= MOST_LANES:
                self._reply_lanes.clear()
            lane = self._reply_lanes[reply_to] = Lane(REPLIES, reply_to, "", False)
        return lane

    def _send_reply(self, lane: Lane, encoded: bytes, done: Callable[[], None], tries: int) -> None:
        def settled(error: BaseException | None) -> None:
            if error is None or isinstance(error, Unroutable) or tries <= 1:
                done()  # confirmed, or the requester is gone: it asks again over its new queue
            else:
                asyncio.get_running_loop().call_later(
                    AGAIN_SECONDS, self._send_reply, lane, encoded, done, tries - 1
                )

        self._lanes.send(lane, encoded, settled)

    async def _reply_json(
        self, reply: ReplyFrame, properties: codec.Properties, done: Callable[[], None]
    ) -> None:
        message = Outgoing(
            REPLIES,
            properties.reply_to,
            codec.reply_as_json(reply),
            persistent=False,
            correlation_id=properties.correlation_id or properties.message_id,
            content_type=JSON,
            type="reply",
            headers={"status": reply.status},
        )
        try:
            await self._link.publish(message)
        except Exception as error:
            log.warning("reply_lost", error=str(error))
        done()

    def _announce(self, topic: str, encoded: bytes, done: Callable[[], None]) -> None:
        lane = self._event_lanes.get(topic)
        if lane is None:
            lane = self._event_lanes[topic] = Lane(EVENTS, topic, mandatory=False)

        def settled(error: BaseException | None) -> None:
            if error is None:
                done()
            else:
                asyncio.get_running_loop().call_later(AGAIN_SECONDS, self._announce, topic, encoded, done)

        self._lanes.send(lane, encoded, settled)

    async def _publish_until_confirmed(self, message: Outgoing) -> None:
        while True:
            try:
                await self._link.publish(message)
                return
            except Exception as error:
                log.warning(
                    "publish_again", exchange=message.exchange, routing_key=message.key, error=str(error)
                )
                await asyncio.sleep(AGAIN_SECONDS)

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
