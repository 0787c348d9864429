"""Runs handlers inside the inbox and says how each frame ended; knows nothing of the broker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec

from shared import context
from shared.bus import codec
from shared.bus.codec import Frame
from shared.bus.endings import Outcome, Work, encode_events, refusal_of
from shared.bus.inbox import AlreadyAnswered, CommitUnknown, Entry, Inbox, Unit
from shared.bus.routes import Call, Done, Job, Route
from shared.bus.verdict import MOST_ATTEMPTS, STILL_RUNNING, Ending
from shared.contracts.base import Message
from shared.contracts.submissions import RefusalBody, Submission
from shared.errors import Away, Refusal, Retry

TRIES = 4
# Longer than a statement and its connection may take (32 s): a hung database is noticed as such first.
HANDLER_SECONDS = 60.0
BUSY = Outcome(
    Ending.BUSY,
    refusal=RefusalBody(status=409, code=STILL_RUNNING, detail="this key is being worked on", retry_after=1),
)
MakeDeps = Callable[[Call], Any]
_refusals = msgspec.msgpack.Decoder(RefusalBody)


class HandlerStuck(Exception):
    """A handler did not end in time and was cancelled."""


class Runner:
    """The handlers of one service and the inbox that remembers what they did.

    Every method that runs frames returns one Outcome per frame; an outcome AWAY means that the database,
    not the frame, failed, and that the frame is to be kept.
    """

    def __init__(
        self,
        service: str,
        table: Mapping[str, Route],
        inbox: Inbox,
        make_deps: MakeDeps,
        *,
        inbox_hours: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._service = service
        self._inbox = inbox
        self._make_deps = make_deps
        self._inbox_seconds = inbox_hours * 3600
        self._clock = clock
        self._decoders = {topic: msgspec.msgpack.Decoder(route.message) for topic, route in table.items()}

    # -- one frame -------------------------------------------------------------------------------------

    async def one(self, route: Route, work: Work) -> Outcome:
        """Run a command, event or query by itself."""
        frame = work.frame
        context.bind(request_id=frame.request_id, traceparent=frame.traceparent, frame=str(frame.id))
        try:
            return await self._one(route, work)
        except Refusal as refusal:
            return Outcome(Ending.REFUSED, refusal=refusal_of(refusal))
        except Exception as error:
            return self._failed(error)

    async def _one(self, route: Route, work: Work) -> Outcome:
        frame = work.frame
        protected = route.inbox and route.shape != "query"
        if protected and _needs_look(work, self._too_old(frame)):
            ended = (await self._look([work])).get(frame.id)
            if ended is not None:
                return ended
        ended = self._before(work, protected)
        if ended is None and work.taken.delivery.redelivered and protected:
            ended = await self._counted(frame)
        if ended is not None:
            return ended
        message = self._decode(route, frame)
        if isinstance(message, Outcome):
            return message
        if route.shape == "batch":
            return (await self._batch(route, [work], [message]))[0]
        if not protected:
            done: Done[Any] = await _handle(route, message, self._deps(route, frame, self._inbox.pool))
            return self._done(frame, done)
        return await self._in_unit(route, work, message)

    async def _in_unit(self, route: Route, work: Work, message: Message) -> Outcome:
        frame = work.frame
        for left in range(TRIES, 0, -1):
            try:
                async with self._inbox.unit() as unit:
                    if _keyed(frame.id) and frame.id not in await unit.lock([frame.id]):
                        return BUSY
                    done = await _handle(route, message, self._deps(route, frame, unit.db))
                    outcome = self._done(frame, done)
                    await unit.record([_entry(frame, outcome)])
                return outcome
            except AlreadyAnswered:
                return (await self._look([work]))[frame.id]
            except CommitUnknown as error:
                work.maybe_committed = True
                raise Away(str(error)) from error
            except Refusal as refusal:
                return await self._keep_refusal(work, Outcome(Ending.REFUSED, refusal=refusal_of(refusal)))
            except Exception as error:
                if left == 1 or not self._inbox.again(error):
                    raise
        raise AssertionError("unreachable")

    async def _keep_refusal(self, work: Work, outcome: Outcome) -> Outcome:
        if not _kept(work.frame, outcome):
            return outcome
        kept = await self._inbox.keep([_entry(work.frame, outcome)])
        return outcome if work.frame.id in kept else (await self._look([work]))[work.frame.id]

    # -- many frames -----------------------------------------------------------------------------------

    async def many(self, route: Route, works: Sequence[Work]) -> list[Outcome]:
        """Run frames of a batch topic in one transaction; if that fails, each alone."""
        first = works[0].frame
        context.bind(request_id=first.request_id, traceparent=first.traceparent, frame=str(first.id))
        ended: dict[UUID, Outcome] = {}
        try:
            look = [work for work in works if _needs_look(work, self._too_old(work.frame))]
            if look:
                ended.update(await self._look(look))
            ready, messages = [], []
            for work in works:
                if work.frame.id in ended:
                    continue
                before = self._before(work, True)
                message = before or self._decode(route, work.frame)
                if isinstance(message, Outcome):
                    ended[work.frame.id] = message
                else:
                    ready.append(work)
                    messages.append(message)
            if ready:
                outcomes = await self._batch(route, ready, messages)
                ended.update(zip((work.frame.id for work in ready), outcomes, strict=True))
        except Exception as error:
            failed = self._failed(error)
            if failed.ending is not Ending.AWAY and len(works) > 1:
                return [ended.get(work.frame.id) or await self.one(route, work) for work in works]
            if isinstance(error, Refusal):
                failed = await self._keep_refusal(
                    works[0], Outcome(Ending.REFUSED, refusal=refusal_of(error))
                )
            return [ended.get(work.frame.id, failed) for work in works]
        return [ended[work.frame.id] for work in works]

    async def _batch(self, route: Route, works: Sequence[Work], messages: Sequence[Message]) -> list[Outcome]:
        busy: dict[UUID, Outcome] = {}
        for left in range(TRIES, 0, -1):
            try:
                async with self._inbox.unit() as unit:
                    keyed = [work.frame.id for work in works if _keyed(work.frame.id)]
                    if keyed:
                        free = await unit.lock(keyed)
                        busy = {name: BUSY for name in keyed if name not in free}
                    return await self._batch_in(unit, route, works, messages, busy)
            except CommitUnknown as error:
                for work in works:
                    work.maybe_committed = True
                raise Away(str(error)) from error
            except Exception as error:
                if left > 1 and self._inbox.again(error):
                    continue
                if len(works) > 1:
                    raise
                return [await self._alone_failed(works[0], error)]
        raise AssertionError("unreachable")

    async def _alone_failed(self, work: Work, error: Exception) -> Outcome:
        """How a batch of one ends when its handler or its inbox row raises."""
        if isinstance(error, AlreadyAnswered):
            return (await self._look([work]))[work.frame.id]
        if isinstance(error, Refusal):
            return await self._keep_refusal(work, Outcome(Ending.REFUSED, refusal=refusal_of(error)))
        raise error

    async def _batch_in(
        self,
        unit: Unit,
        route: Route,
        works: Sequence[Work],
        messages: Sequence[Message],
        busy: Mapping[UUID, Outcome],
    ) -> list[Outcome]:
        pairs = [
            (work, message)
            for work, message in zip(works, messages, strict=True)
            if work.frame.id not in busy
        ]
        if not pairs:
            return [busy[work.frame.id] for work in works]
        jobs = [_job(work.frame, message) for work, message in pairs]
        results = await _handle(route, jobs, self._deps(route, pairs[0][0].frame, unit.db))
        outcomes = dict(busy)
        entries = []
        for (work, _), result in zip(pairs, results, strict=True):
            if isinstance(result, Refusal):
                outcome = Outcome(Ending.REFUSED, refusal=refusal_of(result))
            else:
                outcome = self._done(work.frame, result)
            outcomes[work.frame.id] = outcome
            if _kept(work.frame, outcome):
                entries.append(_entry(work.frame, outcome))
        await unit.record(entries)
        return [outcomes[work.frame.id] for work in works]

    # -- what the inbox says ---------------------------------------------------------------------------

    async def submission(self, frame_id: UUID) -> Submission:
        """What became of a frame, for whoever submitted it."""
        entry = (await self._inbox.find([frame_id])).get(frame_id)
        if entry is None:
            return Submission(state="queued")
        if entry.refused:
            return Submission(state="refused", refusal=_refusals.decode(entry.reply))
        return Submission(state="stored", reply=msgspec.Raw(entry.reply))

    async def _look(self, works: Sequence[Work]) -> dict[UUID, Outcome]:
        entries = await self._inbox.find([work.frame.id for work in works])
        return {
            work.frame.id: answer_again(work.frame, entries[work.frame.id])
            for work in works
            if work.frame.id in entries
        }

    async def _counted(self, frame: Frame) -> Outcome | None:
        attempts = await self._inbox.count_attempt(frame.id)
        return Outcome(Ending.TOO_OFTEN) if attempts >= MOST_ATTEMPTS else None

    # -- small decisions -------------------------------------------------------------------------------

    def _too_old(self, frame: Frame) -> bool:
        return frame.born != 0 and self._clock() - frame.born / 1000 > self._inbox_seconds

    def _before(self, work: Work, protected: bool) -> Outcome | None:
        if protected and self._too_old(work.frame):
            return Outcome(Ending.TOO_OLD)
        left = work.frame.seconds_left(self._clock())
        return Outcome(Ending.EXPIRED) if left is not None and left <= 0 else None

    def _decode(self, route: Route, frame: Frame) -> Message | Outcome:
        try:
            message: Message = self._decoders[frame.topic].decode(frame.body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            detail = RefusalBody(status=400, code="malformed", detail=str(error))
            return Outcome(Ending.MALFORMED, refusal=detail, error=error)
        return message

    def _deps(self, route: Route, frame: Frame, db: Any) -> Any:
        return (route.make_deps or self._make_deps)(
            Call(
                db=db,
                caller=frame.principal,
                id=frame.id,
                born=_moment(frame.born / 1000),
                now=_moment(self._clock()),
                client=frame.client,
                attempt=frame.attempt,
            )
        )

    def deps_for_query(self, route: Route, frame: Frame) -> Any:
        """What a streaming handler works with."""
        return self._deps(route, frame, self._inbox.pool)

    def decoded(self, route: Route, frame: Frame) -> Message | Outcome:
        """The message of a frame, or how it ends when it cannot be decoded."""
        return self._decode(route, frame)

    def _done(self, frame: Frame, done: Done[Any]) -> Outcome:
        events = encode_events(frame, self._service, done.events, int(self._clock() * 1000))
        return Outcome(Ending.DONE, reply=codec.encode(done.reply), events=events)

    def _failed(self, error: Exception) -> Outcome:
        if isinstance(error, Retry):
            return Outcome(Ending.RETRY, error=error, retry_after=error.after_seconds)
        if isinstance(error, Away) or self._inbox.away(error):
            return Outcome(Ending.AWAY, error=error)
        return Outcome(Ending.FAILED, error=error)


async def _handle(route: Route, *arguments: Any) -> Any:
    """Call a handler; one that never ends is a bug, told apart from a database that does not answer."""
    try:
        async with asyncio.timeout(HANDLER_SECONDS) as limit:
            return await route.handler(*arguments)
    except TimeoutError:
        if limit.expired():
            raise HandlerStuck(f"{route.message.topic} ran for {HANDLER_SECONDS} s") from None
        raise


def answer_again(frame: Frame, entry: Entry) -> Outcome:
    """What an inbox row answers a frame: the same reply and events, or that the body was another."""
    if entry.body_hash != codec.body_hash(frame):
        detail = "this idempotency key was used with another request"
        return Outcome(Ending.MISMATCH, refusal=RefusalBody(status=422, code="key_reused", detail=detail))
    if entry.refused:
        return Outcome(Ending.REFUSED, refusal=_refusals.decode(entry.reply))
    return Outcome(Ending.DONE, reply=entry.reply, events=entry.events)


def _entry(frame: Frame, outcome: Outcome) -> Entry:
    refused = outcome.refusal is not None
    reply = codec.encode(outcome.refusal) if refused else outcome.reply
    return Entry(frame.id, codec.body_hash(frame), refused, reply, outcome.events)


def _kept(frame: Frame, outcome: Outcome) -> bool:
    """Everything, but "too many requests" under a key: its holder is meant to try the key again."""
    return not (outcome.refusal is not None and outcome.refusal.status == 429 and _keyed(frame.id))


def _keyed(frame_id: UUID) -> bool:
    return frame_id.int >> 124 == 0xF


def _needs_look(work: Work, too_old: bool) -> bool:
    """Whether a frame may have been answered before; a first delivery of a uuid7 is not looked up."""
    frame = work.frame
    return (
        work.taken.delivery.redelivered
        or work.maybe_committed
        or too_old
        or frame.attempt > 1
        or _keyed(frame.id)
    )


def _job(frame: Frame, message: Message) -> Job[Any]:
    return Job(message, frame.id, frame.principal, _moment(frame.born / 1000))


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
