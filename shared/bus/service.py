"""The answering side: takes deliveries, gives each frame a place to run, waits while the database is away."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram

from shared.bus import codec
from shared.bus.about import Identity, own_routes
from shared.bus.codec import Frame
from shared.bus.endings import Endings, Outcome, Taken, Work
from shared.bus.inbox import Inbox
from shared.bus.link import Delivery, Link, Subscription
from shared.bus.routes import Route, Routes
from shared.bus.running import MakeDeps, Runner
from shared.bus.streaming import Streamer
from shared.bus.verdict import Broker, Ending, Verdict, judge
from shared.contracts.base import may_send
from shared.contracts.submissions import RefusalBody, Submission

log = structlog.get_logger()

Tell = Callable[[Frame, Ending], None]
PREFETCH = 64
MOST_IN_BATCH = 256
MOST_BATCH_BYTES = 4 << 20
PROBE_SECONDS = 1.0
HELD_CHECK_SECONDS = 0.05


@dataclass(frozen=True)
class Limits:
    """How much runs at once and how far back a repeat is known.

    `commands` transactions at a time (the pool), `batches` per batch topic, `queries`, `streams`;
    `inbox_hours` as INBOX_HOURS; `waits` the seconds of the two wait queues.
    """

    commands: int = 8
    batches: int = 2
    queries: int = 8
    streams: int = 8
    inbox_hours: int = 24
    waits: tuple[float, float] = (10.0, 600.0)


@dataclass
class _Track:
    """Work of one kind that waits for a free place; `most` run at once, a batch takes what waits."""

    most: int
    route: Route | None = None
    waiting: deque[Work] = field(default_factory=deque)
    running: int = 0


class Meters:
    """What the bus counts, for /metrics."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.frames = Counter(
            "posthouse_frames", "Frames ended, by topic and ending", ["topic", "ending"], registry=registry
        )
        self.seconds = Histogram(
            "posthouse_handler_seconds", "Seconds a handler ran, by topic", ["topic"], registry=registry
        )


class Service:
    """Serves the routes of one service from its queues."""

    def __init__(
        self,
        routes: Routes,
        link: Link,
        inbox: Inbox,
        make_deps: MakeDeps,
        *,
        limits: Limits = Limits(),
        registry: CollectorRegistry | None = None,
        tell: Tell | None = None,
        clock: Callable[[], float] = time.time,
        identity: Identity | None = None,
    ) -> None:
        self._tell = tell
        self._routes = routes
        self._link = link
        self._inbox = inbox
        self._limits = limits
        self._clock = clock
        own = own_routes(routes.service, identity or Identity(), self.counts, self._became)
        self._table = {**own, **routes.table}
        self._runner = Runner(
            routes.service, self._table, inbox, make_deps, inbox_hours=limits.inbox_hours, clock=clock
        )
        self._streamer = Streamer(link, inbox, self._runner, clock)
        self._endings = Endings(routes.service, link, short_wait=limits.waits[0], clock=clock)
        self._meters = Meters(registry or CollectorRegistry())
        self._tracks = self._make_tracks()
        self._running: dict[UUID, Work] = {}
        self._held: deque[Work] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._subscriptions: list[Subscription] = []
        self._recovering: asyncio.Task[None] | None = None
        self._draining = False

    @property
    def queues(self) -> tuple[str, ...]:
        """The queues this service takes from."""
        service = self._routes.service
        return (service, f"{service}.queries", f"{service}.events")

    @property
    def holding(self) -> bool:
        """Whether the database is away and everything waits for it."""
        return self._recovering is not None

    def counts(self) -> dict[str, int]:
        """What waits, runs and is held now."""
        return {
            "waiting": sum(len(track.waiting) for track in self._tracks.values()),
            "running": sum(track.running for track in self._tracks.values()),
            "held": len(self._held),
        }

    async def start(self, *further_queues: str) -> None:
        """Begin to take from the queues."""
        self._queues = (*self.queues, *further_queues)
        await self._subscribe()

    async def stop(self, drain_seconds: float) -> None:
        """Take no more, let what runs end within `drain_seconds`, give the rest back."""
        self._draining = True
        await self._unsubscribe()
        if self._recovering:
            self._recovering.cancel()
        for work in self._left_over():
            self._end(work, Outcome(Ending.DRAINING))
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=drain_seconds)
        for task in set(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(set(self._tasks))
        with suppress(TimeoutError):
            async with asyncio.timeout(2):
                await self._endings.idle()

    def _left_over(self) -> list[Work]:
        left = [*self._held]
        self._held.clear()
        for track in self._tracks.values():
            left.extend(track.waiting)
            track.waiting.clear()
        return left

    async def _subscribe(self) -> None:
        for queue in self._queues:
            self._subscriptions.append(await self._link.consume(queue, self.take, prefetch=PREFETCH))

    async def _unsubscribe(self) -> None:
        subscriptions, self._subscriptions = self._subscriptions, []
        for subscription in subscriptions:
            await subscription.cancel()

    # -- from the broker -------------------------------------------------------------------------------

    def take(self, delivery: Delivery) -> None:
        """Take one delivery: find a place for each of its frames."""
        taken = Taken(delivery, open=1)
        try:
            frames = codec.decode_frames(delivery.body, delivery.routing_key, delivery.properties)
        except codec.Malformed as error:
            self._spawn(self._reject(taken, error))
            return
        taken.open = len(frames)
        if not frames:
            delivery.ack()
        for frame in frames:
            self._place(Work(frame, taken))

    async def _reject(self, taken: Taken, error: codec.Malformed) -> None:
        properties = taken.delivery.properties
        if properties.reply_to:
            frame = Frame(id=UUID(int=0), topic="", kind="command")
            refusal = RefusalBody(status=400, code="malformed", detail=str(error))
            self._endings.reply(Work(frame, taken), 400, Outcome(Ending.MALFORMED, refusal=refusal))
        await self._endings.bury_delivery(taken, Ending.MALFORMED, error)

    def _place(self, work: Work) -> None:
        frame = work.frame
        route = self._table.get(frame.topic)
        if route is None:
            self._end(work, Outcome(Ending.UNKNOWN_TOPIC))
            return
        if not self._allowed(work, route):
            self._end(work, Outcome(Ending.NOT_ALLOWED))
            return
        if self._draining:
            self._end(work, Outcome(Ending.DRAINING))
            return
        if route.shape not in ("query", "stream"):
            first = self._running.setdefault(frame.id, work)
            if first is not work:
                first.repeats.append(work)
                return
        track = self._track_of(route, work)
        track.waiting.append(work)
        self._kick(track)

    def _allowed(self, work: Work, route: Route) -> bool:
        """Whether the account the broker vouches for may send this topic, in this principal's name."""
        publisher = work.taken.delivery.properties.user_id
        if publisher == self._routes.service:
            return True  # only this service may write to its own wait route
        if not publisher or not may_send(publisher, route.message):
            return False
        principal = work.frame.principal
        return publisher == "gateway" or (principal.kind == "service" and principal.id == publisher)

    # -- a place to run --------------------------------------------------------------------------------

    def _make_tracks(self) -> dict[str, _Track]:
        tracks = {
            "command": _Track(self._limits.commands),
            "query": _Track(self._limits.queries),
            "stream": _Track(self._limits.streams),
            "alone": _Track(1),
        }
        for topic, route in self._table.items():
            if route.shape == "batch":
                tracks[topic] = _Track(self._limits.batches, route)
        return tracks

    def _track_of(self, route: Route, work: Work) -> _Track:
        if route.shape == "query":
            return self._tracks["query"]
        if route.shape == "stream":
            return self._tracks["stream"]
        if work.taken.delivery.redelivered:
            return self._tracks["alone"]
        return self._tracks[work.frame.topic] if route.shape == "batch" else self._tracks["command"]

    def _kick(self, track: _Track) -> None:
        while track.waiting and track.running < track.most and not self.holding:
            track.running += 1
            if track.route is None:
                coroutine = self._run_one(track, track.waiting.popleft())
            else:
                coroutine = self._run_many(track, track.route)
            self._spawn(coroutine)

    async def _run_one(self, track: _Track, work: Work) -> None:
        try:
            route = self._table[work.frame.topic]
            started = time.perf_counter()
            if route.shape == "stream":
                outcome = await self._streamer.run(route, work)
            else:
                outcome = await self._runner.one(route, work)
            self._meters.seconds.labels(work.frame.topic).observe(time.perf_counter() - started)
            self._end(work, outcome)
        except asyncio.CancelledError:
            self._end(work, Outcome(Ending.DRAINING))
            raise
        finally:
            self._free(track)

    async def _run_many(self, track: _Track, route: Route) -> None:
        await asyncio.sleep(0)  # deliveries that arrived in the same turn come along
        works = _batch(track.waiting)
        try:
            if not works:
                return
            started = time.perf_counter()
            outcomes = await self._runner.many(route, works)
            self._meters.seconds.labels(route.message.topic).observe(time.perf_counter() - started)
            for work, outcome in zip(works, outcomes, strict=True):
                self._end(work, outcome)
        except asyncio.CancelledError:
            for work in works:
                self._end(work, Outcome(Ending.DRAINING))
            raise
        finally:
            self._free(track)

    def _free(self, track: _Track) -> None:
        track.running -= 1
        if not self._draining:
            self._kick(track)

    async def _became(self, frame_id: UUID) -> Submission:
        return await self._runner.submission(frame_id)

    # -- how it ended ----------------------------------------------------------------------------------

    def _end(self, work: Work, outcome: Outcome) -> None:
        frame = work.frame
        seconds_left = frame.seconds_left(self._clock())
        verdict = judge(
            outcome.ending,
            attempt=frame.attempt,
            seconds_left=seconds_left,
            retry_after=outcome.retry_after,
            waits=self._limits.waits,
        )
        if outcome.ending is Ending.REFUSED and outcome.refusal:
            verdict = Verdict(verdict.broker, outcome.refusal.status)
        if outcome.ending is Ending.RETRY and verdict.broker is Broker.DEAD:
            outcome = replace(outcome, ending=Ending.TOO_OFTEN)
        if verdict.broker is Broker.HOLD:
            self._hold(work, outcome)
            return
        topic = frame.topic if frame.topic in self._table else "other"
        self._meters.frames.labels(topic, outcome.ending.value).inc()
        if self._tell is not None:
            self._tell(frame, outcome.ending)
        if self._running.get(frame.id) is work:
            del self._running[frame.id]
        self._endings.carry_out(work, outcome, verdict)
        for repeat in work.repeats:
            self._end_repeat(repeat, work, outcome, verdict)

    def _end_repeat(self, repeat: Work, first: Work, outcome: Outcome, verdict: Verdict) -> None:
        """A copy that joined the running one: the same reply; the effects and events are the first one's."""
        if codec.body_hash(repeat.frame) != codec.body_hash(first.frame):
            detail = "this idempotency key was used with another request"
            refusal = RefusalBody(status=422, code="key_reused", detail=detail)
            self._endings.carry_out(
                repeat, Outcome(Ending.MISMATCH, refusal=refusal), Verdict(Broker.ACK, 422)
            )
        elif verdict.broker is Broker.REQUEUE:
            self._endings.carry_out(repeat, outcome, verdict)
        else:
            status = verdict.status if verdict.broker in (Broker.ACK, Broker.DEAD) else 0
            same = Outcome(outcome.ending, reply=outcome.reply, refusal=outcome.refusal)
            self._endings.carry_out(repeat, same, Verdict(Broker.ACK, status))

    # -- the database is away --------------------------------------------------------------------------

    def _hold(self, work: Work, outcome: Outcome) -> None:
        if self._draining:
            self._end(work, Outcome(Ending.DRAINING))
            return
        self._held.append(work)
        if self._recovering is None:
            log.warning("holding", reason=str(outcome.error) or type(outcome.error).__name__)
            self._recovering = asyncio.get_running_loop().create_task(self._recover())

    async def _recover(self) -> None:
        """Take nothing, tell waiters at their deadline, probe every second, then go on with what is held."""
        await self._unsubscribe()
        next_probe = time.monotonic() + PROBE_SECONDS / 5
        while True:
            self._tell_expired()
            if time.monotonic() >= next_probe:
                next_probe = time.monotonic() + PROBE_SECONDS
                try:
                    async with asyncio.timeout(PROBE_SECONDS * 5):
                        await self._inbox.probe()
                    break
                except Exception as error:
                    log.info("still_away", reason=str(error) or type(error).__name__)
            await asyncio.sleep(HELD_CHECK_SECONDS)
        log.warning("going_on", held=len(self._held))
        self._recovering = None
        held, self._held = self._held, deque()
        for work in held:
            self._track_of(self._table[work.frame.topic], work).waiting.append(work)
        await self._subscribe()
        for track in self._tracks.values():
            self._kick(track)

    def _tell_expired(self) -> None:
        """503 for frames whose deadline has passed and that certainly were not executed."""
        now = self._clock()
        for waiting in (self._held, *(track.waiting for track in self._tracks.values())):
            for work in [work for work in waiting if _expired(work, now)]:
                waiting.remove(work)
                refusal = RefusalBody(status=503, code="unavailable", detail="the database does not answer")
                if self._running.get(work.frame.id) is work:
                    del self._running[work.frame.id]
                self._meters.frames.labels(work.frame.topic, "away").inc()
                for each in (work, *work.repeats):
                    self._endings.carry_out(
                        each, Outcome(Ending.AWAY, refusal=refusal), Verdict(Broker.ACK, 503)
                    )

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("task_failed", exc_info=task.exception())


def _batch(waiting: deque[Work]) -> list[Work]:
    """As much as one transaction should carry, at least one."""
    works: list[Work] = []
    size = 0
    while waiting and len(works) < MOST_IN_BATCH and (not works or size < MOST_BATCH_BYTES):
        size += len(memoryview(waiting[0].frame.body))
        works.append(waiting.popleft())
    return works


def _expired(work: Work, now: float) -> bool:
    left = work.frame.seconds_left(now)
    return left is not None and left <= 0 and not work.maybe_committed


def heard_topics(routes: Routes) -> Iterable[str]:
    """The topics of other services' events a service listens to."""
    return (topic for topic, route in routes.table.items() if route.shape == "event")
