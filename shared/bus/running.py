"""Runs handlers inside the inbox and says how each frame ended; knows nothing of the broker."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec

from shared import context
from shared.bus import codec
from shared.bus.codec import Frame
from shared.bus.endings import Outcome, Work, encode_events, refusal_of
from shared.bus.inbox import BLANK, AlreadyAnswered, CommitUnknown, Entry, Inbox, Unit
from shared.bus.routes import Call, Done, Job, Route, Statement
from shared.bus.verdict import MOST_ATTEMPTS, STILL_RUNNING, Ending
from shared.bus.watch import Watch
from shared.contracts.base import Message
from shared.contracts.submissions import RefusalBody, Submission
from shared.errors import Away, Refusal, Retry

TRIES = 4
# A handler that never ends is a bug. Longer than a statement and its connection may take (32 s): a hung
# database is noticed as such first.
HANDLER_SECONDS = 60.0
BUSY = Outcome(
    Ending.BUSY,
    refusal=RefusalBody(status=409, code=STILL_RUNNING, detail="this key is being worked on", retry_after=1),
)
MakeDeps = Callable[[Call], Any]
_refusals = msgspec.msgpack.Decoder(RefusalBody)


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
        self._watch = Watch(HANDLER_SECONDS)
        self._decoders = {topic: msgspec.msgpack.Decoder(route.message) for topic, route in table.items()}

    # -- one frame -------------------------------------------------------------------------------------

    async def one(self, route: Route, work: Work) -> Outcome:
        """Run a command, event or query by itself."""
        frame = work.frame
        context.enter(frame.request_id, frame.traceparent, frame.id)
        try:
            return await (self._protected(route, work) if route.inbox else self._plain(route, work))
        except Refusal as refusal:
            return Outcome(Ending.REFUSED, refusal=refusal_of(refusal))
        except Exception as error:
            return self._failed(error)

    async def _plain(self, route: Route, work: Work) -> Outcome:
        """A query, or a command with nothing to protect: no inbox, no transaction."""
        frame = work.frame
        now = self._clock()
        if _expired(frame, now):
            return Outcome(Ending.EXPIRED)
        message = self._decode(frame)
        if isinstance(message, Outcome):
            return message
        deps = self._deps(route, frame, self._inbox.pool, now)
        done = await self._watch.run(route.handler(message, deps))
        return self._done(frame, done, now)

    async def _protected(self, route: Route, work: Work) -> Outcome:
        frame = work.frame
        now = self._clock()
        if _needs_look(work, self._too_old(frame, now)):
            ended = (await self._look([work])).get(work)
            if ended is not None:
                return ended
        ended = self._before(frame, now)
        if ended is None and work.taken.delivery.redelivered:
            ended = await self._counted(frame)
        if ended is not None:
            return ended
        message = self._decode(frame)
        if isinstance(message, Outcome):
            return message
        if route.shape == "batch":
            return (await self._batch(route, [work], [message]))[0]
        return await self._in_unit(route, work, message)

    async def _in_unit(self, route: Route, work: Work, message: Message) -> Outcome:
        frame = work.frame
        for left in range(TRIES, 0, -1):
            try:
                if route.one_statement and not _keyed(frame.id):
                    return await self._in_one(route, frame, message)
                async with self._inbox.unit() as unit:
                    if _keyed(frame.id) and frame.id not in await unit.lock([frame.id]):
                        return BUSY
                    now = self._clock()
                    deps = self._deps(route, frame, unit.db, now)
                    done = await self._watch.run(_ended(route.handler(message, deps), unit))
                    outcome = self._done(frame, done, now)
                    await unit.record([_entry(frame, outcome)])
                return outcome
            except AlreadyAnswered:
                return (await self._look([work]))[work]
            except CommitUnknown as error:
                work.maybe_committed = True
                raise Away(str(error)) from error
            except Refusal as refusal:
                return await self._keep_refusal(work, Outcome(Ending.REFUSED, refusal=refusal_of(refusal)))
            except Exception as error:
                if left == 1 or not self._inbox.again(error):
                    raise
        raise AssertionError("unreachable")

    async def _in_one(self, route: Route, frame: Frame, message: Message) -> Outcome:
        """A command of one statement, in one journey to the database."""
        now = self._clock()
        statement = await self._watch.run(
            route.handler(message, self._deps(route, frame, self._inbox.pool, now))
        )
        outcome = self._done(frame, Done(statement.reply(BLANK)), now)
        reply = await self._watch.run(self._inbox.with_row(statement, _entry(frame, outcome)))
        return msgspec.structs.replace(outcome, reply=reply)

    async def _keep_refusal(self, work: Work, outcome: Outcome) -> Outcome:
        if not _kept(work.frame, outcome):
            return outcome
        kept = await self._inbox.keep([_entry(work.frame, outcome)])
        return outcome if work.frame.id in kept else (await self._look([work]))[work]

    # -- many frames -----------------------------------------------------------------------------------

    async def many(self, route: Route, works: Sequence[Work]) -> list[Outcome]:
        """Run frames of a batch topic in one transaction; if that fails, each alone."""
        first = works[0].frame
        context.enter(first.request_id, first.traceparent, first.id)
        ended: dict[Work, Outcome] = {}
        try:
            ready, messages = await self._sift(works, ended)
            if not ended:
                return await self._batch(route, ready, messages)
            if ready:
                ended.update(zip(ready, await self._batch(route, ready, messages), strict=True))
        except Exception as error:
            failed = self._failed(error)
            if failed.ending is not Ending.AWAY and len(works) > 1:
                return [ended.get(work) or await self.one(route, work) for work in works]
            if isinstance(error, Refusal):
                failed = await self._keep_refusal(
                    works[0], Outcome(Ending.REFUSED, refusal=refusal_of(error))
                )
            return [ended.get(work, failed) for work in works]
        return [ended[work] for work in works]

    async def _sift(
        self, works: Sequence[Work], ended: dict[Work, Outcome]
    ) -> tuple[list[Work], list[Message]]:
        """The frames to run with their messages; how the others have ended goes into `ended`."""
        now = self._clock()
        look = [work for work in works if _needs_look(work, self._too_old(work.frame, now))]
        if look:
            ended.update(await self._look(look))
        ready: list[Work] = []
        messages: list[Message] = []
        for work in works:
            if work in ended:
                continue
            message = self._before(work.frame, now) or self._decode(work.frame)
            if isinstance(message, Outcome):
                ended[work] = message
            else:
                ready.append(work)
                messages.append(message)
        return ready, messages

    async def _batch(self, route: Route, works: Sequence[Work], messages: Sequence[Message]) -> list[Outcome]:
        guessed = await self._guessed(route, works, messages)
        if guessed is not None:
            return guessed
        for left in range(TRIES, 0, -1):
            try:
                async with self._inbox.unit() as unit:
                    keyed = [work.frame.id for work in works if _keyed(work.frame.id)]
                    if not keyed:
                        return await self._batch_in(unit, route, works, messages)
                    free = await unit.lock(keyed)
                    return await self._batch_beside(unit, route, works, messages, set(keyed) - free)
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

    async def _guessed(
        self, route: Route, works: Sequence[Work], messages: Sequence[Message]
    ) -> list[Outcome] | None:
        """Try what the service guesses, in one journey to the database; None without a right guess."""
        if route.guess is None or any(_keyed(work.frame.id) for work in works):
            return None
        now = self._clock()
        jobs = [_job(work.frame, message) for work, message in zip(works, messages, strict=True)]
        guess = route.guess(jobs, self._deps(route, works[0].frame, self._inbox.pool, now))
        if guess is None:
            return None
        right = False
        try:
            results = zip(works, guess.results, strict=True)
            outcomes = [self._done(work.frame, result, now) for work, result in results]
            entries = [_entry(work.frame, outcome) for work, outcome in zip(works, outcomes, strict=True)]
            right = await self._watch.run(self._inbox.at_once(guess, entries))
        except CommitUnknown as error:
            for work in works:
                work.maybe_committed = True
            raise Away(str(error)) from error
        finally:
            guess.ended(right)
        return outcomes if right else None

    async def _alone_failed(self, work: Work, error: Exception) -> Outcome:
        """How a batch of one ends when its handler or its inbox row raises."""
        if isinstance(error, AlreadyAnswered):
            return (await self._look([work]))[work]
        if isinstance(error, Refusal):
            return await self._keep_refusal(work, Outcome(Ending.REFUSED, refusal=refusal_of(error)))
        raise error

    async def _batch_beside(
        self,
        unit: Unit,
        route: Route,
        works: Sequence[Work],
        messages: Sequence[Message],
        busy: Collection[UUID],
    ) -> list[Outcome]:
        """A batch without the frames that another process works on."""
        ready = [index for index, work in enumerate(works) if work.frame.id not in busy]
        outcomes = [BUSY] * len(works)
        if ready:
            some = [works[index] for index in ready], [messages[index] for index in ready]
            for index, outcome in zip(ready, await self._batch_in(unit, route, *some), strict=True):
                outcomes[index] = outcome
        return outcomes

    async def _batch_in(
        self, unit: Unit, route: Route, works: Sequence[Work], messages: Sequence[Message]
    ) -> list[Outcome]:
        now = self._clock()
        jobs = [_job(work.frame, message) for work, message in zip(works, messages, strict=True)]
        deps = self._deps(route, works[0].frame, unit.db, now)
        results = await self._watch.run(route.handler(jobs, deps))
        outcomes = []
        entries = []
        for work, result in zip(works, results, strict=True):
            if isinstance(result, Refusal):
                outcome = Outcome(Ending.REFUSED, refusal=refusal_of(result))
            else:
                outcome = self._done(work.frame, result, now)
            outcomes.append(outcome)
            if outcome.refusal is None or _kept(work.frame, outcome):
                entries.append(_entry(work.frame, outcome))
        await unit.record(entries)
        return outcomes

    # -- what the inbox says ---------------------------------------------------------------------------

    async def submission(self, frame_id: UUID) -> Submission:
        """What became of a frame, for whoever submitted it."""
        entry = (await self._inbox.find([frame_id])).get(frame_id)
        if entry is None:
            return Submission(state="queued")
        if entry.refused:
            return Submission(state="refused", refusal=_refusals.decode(entry.reply))
        return Submission(state="stored", reply=msgspec.Raw(entry.reply))

    async def _look(self, works: Sequence[Work]) -> dict[Work, Outcome]:
        entries = await self._inbox.find([work.frame.id for work in works])
        return {
            work: answer_again(work.frame, entries[work.frame.id])
            for work in works
            if work.frame.id in entries
        }

    async def _counted(self, frame: Frame) -> Outcome | None:
        attempts = await self._inbox.count_attempt(frame.id)
        return Outcome(Ending.TOO_OFTEN) if attempts >= MOST_ATTEMPTS else None

    # -- small decisions -------------------------------------------------------------------------------

    def _too_old(self, frame: Frame, now: float) -> bool:
        return frame.born != 0 and now - frame.born / 1000 > self._inbox_seconds

    def _before(self, frame: Frame, now: float) -> Outcome | None:
        if self._too_old(frame, now):
            return Outcome(Ending.TOO_OLD)
        return Outcome(Ending.EXPIRED) if _expired(frame, now) else None

    def _decode(self, frame: Frame) -> Message | Outcome:
        try:
            message: Message = self._decoders[frame.topic].decode(frame.body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            detail = RefusalBody(status=400, code="malformed", detail=str(error))
            return Outcome(Ending.MALFORMED, refusal=detail, error=error)
        return message

    def _deps(self, route: Route, frame: Frame, db: Any, now: float) -> Any:
        call = Call(
            db,
            frame.principal,
            frame.id,
            born=_moment(frame.born / 1000),
            now=_moment(now),
            client=frame.client,
            attempt=frame.attempt,
        )
        return (route.make_deps or self._make_deps)(call)

    def deps_for_query(self, route: Route, frame: Frame) -> Any:
        """What a streaming handler works with."""
        return self._deps(route, frame, self._inbox.pool, self._clock())

    def decoded(self, frame: Frame) -> Message | Outcome:
        """The message of a frame, or how it ends when it cannot be decoded."""
        return self._decode(frame)

    def _done(self, frame: Frame, done: Done[Any], now: float) -> Outcome:
        if isinstance(done.reply, Refusal):
            ended = Outcome(Ending.REFUSED, refusal=refusal_of(done.reply))
        else:
            ended = Outcome(Ending.DONE, codec.encode(done.reply))
        if not done.events:
            return ended
        announced = encode_events(frame, self._service, done.events, int(now * 1000))
        events = codec.join([encoded for _, encoded in announced])
        return msgspec.structs.replace(ended, events=events, announced=announced)

    def _failed(self, error: Exception) -> Outcome:
        if isinstance(error, Retry):
            return Outcome(Ending.RETRY, error=error, retry_after=error.after_seconds)
        if isinstance(error, Away) or self._inbox.away(error):
            return Outcome(Ending.AWAY, error=error)
        return Outcome(Ending.FAILED, error=error)


async def _ended(running: Coroutine[Any, Any, Any], unit: Unit) -> Done[Any]:
    """What a handler returns; a statement is carried out."""
    done = await running
    return Done(done.reply(await unit.carry_out(done))) if isinstance(done, Statement) else done


def answer_again(frame: Frame, entry: Entry) -> Outcome:
    """What an inbox row answers a frame: the same reply and events, or that the body was another."""
    if entry.body_hash != codec.body_hash(frame):
        detail = "this idempotency key was used with another request"
        return Outcome(Ending.MISMATCH, refusal=RefusalBody(status=422, code="key_reused", detail=detail))
    if entry.refused:
        refusal = _refusals.decode(entry.reply)
        return Outcome(Ending.REFUSED, refusal=refusal, events=entry.events, again=True)
    return Outcome(Ending.DONE, reply=entry.reply, events=entry.events, again=True)


def _entry(frame: Frame, outcome: Outcome) -> Entry:
    refused = outcome.refusal is not None
    reply = codec.encode(outcome.refusal) if refused else outcome.reply
    return Entry(frame.id, codec.body_hash(frame), refused, reply, outcome.events)


def _kept(frame: Frame, outcome: Outcome) -> bool:
    """Everything, but "too many requests" under a key: its holder is meant to try the key again."""
    return not (outcome.refusal is not None and outcome.refusal.status == 429 and _keyed(frame.id))


def _keyed(frame_id: UUID) -> bool:
    return frame_id.int >> 124 == 0xF


def _expired(frame: Frame, now: float) -> bool:
    left = frame.seconds_left(now)
    return left is not None and left <= 0


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
