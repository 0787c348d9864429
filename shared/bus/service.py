"""The answering side: takes deliveries, gives each frame a place to run, waits while the database is away."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import msgspec
import structlog
from prometheus_client import CollectorRegistry

from shared.bus import codec
from shared.bus.about import Identity, own_routes
from shared.bus.codec import Frame
from shared.bus.endings import Endings, Outcome, Taken, Work
from shared.bus.inbox import Inbox
from shared.bus.link import Delivery, Link, Subscription
from shared.bus.meters import Meters, Tally
from shared.bus.routes import Route, Routes
from shared.bus.running import MakeDeps, Runner
from shared.bus.streaming import Streamer
from shared.bus.verdict import OK, Broker, Ending, Verdict, judge
from shared.contracts.base import ANY_ACCOUNT, owner_of
from shared.contracts.submissions import RefusalBody, Submission
from shared.errors import TooMany
from shared.logs import local_only

log = structlog.get_logger()

Tell = Callable[[Frame, Ending], None]
PREFETCH = 64
MOST_IN_BATCH = 256
MOST_BATCH_BYTES = 1 << 20
LARGE_BYTES = 16 << 10
PROBE_SECONDS = 1.0
HELD_CHECK_SECONDS = 0.05
CROWDED = Outcome(
    Ending.REFUSED,
    refusal=RefusalBody(
        status=429, code=TooMany.code, detail="Too many ask for this at this moment.", retry_after=1
    ),
)


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


@dataclass(eq=False, slots=True)
class _Track:
    """Work of one kind that waits for a free place; `most` run at once, a batch takes what waits.

    A place is a task that goes on while something waits: what never waits itself needs one task for all
    that arrived together. `starting` while such a task is about to look.
    """

    most: int
    batch: bool = False
    guesses: bool = False
    most_waiting: int = 0
    waiting: deque[Work] = field(default_factory=deque)
    running: int = 0
    starting: bool = False

    @property
    def has_place(self) -> bool:
        """Whether one more may run: of small batches that are guessed one, for two overtake each other."""
        if self.guesses and len(memoryview(self.waiting[0].frame.body)) < LARGE_BYTES:
            return not self.running
        return self.running < self.most


@dataclass(frozen=True, slots=True)
class _Place:
    """What is known of a topic beforehand: who may send it, whether copies join, where it runs."""

    route: Route
    senders: frozenset[str]
    joins: bool
    track: _Track
    tally: Tally


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
        self._alone = _Track(1)
        self._places = self._make_places()
        self._tracks = list({id(track): track for track in self._all_tracks()}.values())
        self._running: dict[int, Work] = {}
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
            "waiting": sum(len(track.waiting) for track in self._tracks),
            "running": sum(track.running for track in self._tracks),
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
        for track in self._tracks:
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
        place = self._places.get(frame.topic)
        if place is None:
            self._end(work, Outcome(Ending.UNKNOWN_TOPIC))
            return
        if not self._allowed(work, place):
            self._end(work, Outcome(Ending.NOT_ALLOWED))
            return
        if self._draining:
            self._end(work, Outcome(Ending.DRAINING))
            return
        if place.joins:
            first = self._running.setdefault(frame.id.int, work)
            if first is not work:
                first.repeats.append(work)
                return
        track = self._track_of(place, work)
        if track.most_waiting and len(track.waiting) >= track.most_waiting:
            self._end(work, CROWDED)
            return
        track.waiting.append(work)
        self._kick(track)

    def _allowed(self, work: Work, place: _Place) -> bool:
        """Whether the account the broker vouches for may send this topic, in this principal's name."""
        publisher = work.taken.delivery.properties.user_id
        if publisher == self._routes.service:
            return True  # only this service may write to its own wait route
        if publisher in place.senders:
            if publisher == "gateway":
                return True
        elif not (publisher and ANY_ACCOUNT in place.senders):
            return False
        principal = work.frame.principal
        return principal.kind == "service" and principal.id == publisher

    # -- a place to run --------------------------------------------------------------------------------

    def _make_places(self) -> dict[str, _Place]:
        limits = self._limits
        shapes = {
            "command": _Track(limits.commands),
            "query": _Track(limits.queries),
            "stream": _Track(limits.streams),
        }
        shapes["event"] = shapes["command"]
        return {
            topic: _Place(
                route,
                senders=route.message.senders | {owner_of(topic)},
                joins=route.shape not in ("query", "stream"),
                track=_own_track(route)
                or shapes.get(route.shape)
                or _Track(limits.batches, batch=True, guesses=route.guess is not None),
                tally=self._meters.of(topic),
            )
            for topic, route in self._table.items()
        }

    def _all_tracks(self) -> Iterable[_Track]:
        return (self._alone, *(place.track for place in self._places.values()))

    def _track_of(self, place: _Place, work: Work) -> _Track:
        return self._alone if place.joins and work.taken.delivery.redelivered else place.track

    def _kick(self, track: _Track) -> None:
        """Start a task for what waits, when there is a place; it starts the next one itself."""
        if track.waiting and track.has_place and not track.starting and not self.holding:
            track.running += 1
            track.starting = True
            self._spawn(self._run_together(track) if track.batch else self._run_singly(track))

    async def _run_singly(self, track: _Track) -> None:
        track.starting = False
        if len(track.waiting) > 1:  # when the first of them has to wait for something, others go on
            asyncio.get_running_loop().call_soon(self._kick, track)
        try:
            for _ in range(MOST_IN_BATCH):
                if not track.waiting or self.holding:
                    return
                await self._run_one(track.waiting.popleft())
        finally:
            self._free(track)

    async def _run_one(self, work: Work) -> None:
        place = self._places[work.frame.topic]
        route = place.route
        started = time.perf_counter()
        try:
            if route.shape == "stream":
                outcome = await self._streamer.run(route, work)
            else:
                outcome = await self._runner.one(route, work)
        except asyncio.CancelledError:
            self._end(work, Outcome(Ending.DRAINING))
            raise
        place.tally.ran(time.perf_counter() - started)
        self._end(work, outcome)

    async def _run_together(self, track: _Track) -> None:
        try:
            await asyncio.sleep(0)  # deliveries that arrived in the same turn come along
            track.starting = False
            while track.waiting and not self.holding:
                works = _batch(track.waiting)
                self._kick(track)
                await self._run_many(works)
        finally:
            self._free(track)

    async def _run_many(self, works: list[Work]) -> None:
        place = self._places[works[0].frame.topic]
        started = time.perf_counter()
        try:
            outcomes = await self._runner.many(place.route, works)
        except asyncio.CancelledError:
            for work in works:
                self._end(work, Outcome(Ending.DRAINING))
            raise
        place.tally.ran(time.perf_counter() - started)
        for work, outcome in zip(works, outcomes, strict=True):
            self._end(work, outcome)

    def _free(self, track: _Track) -> None:
        track.running -= 1
        if not self._draining:
            self._kick(track)

    async def _became(self, frame_id: UUID) -> Submission:
        return await self._runner.submission(frame_id)

    # -- how it ended ----------------------------------------------------------------------------------

    def _end(self, work: Work, outcome: Outcome) -> None:
        verdict = OK if outcome.ending is Ending.DONE else self._judge(work.frame, outcome)
        if verdict.broker is Broker.HOLD:
            self._hold(work, outcome)
            return
        if outcome.ending is Ending.RETRY and verdict.broker is Broker.DEAD:
            outcome = msgspec.structs.replace(outcome, ending=Ending.TOO_OFTEN)
        if outcome.again:
            self._meters.repeats += 1
        self._ended_so(work, outcome.ending)
        self._endings.carry_out(work, outcome, verdict)
        for repeat in work.repeats:
            self._end_repeat(repeat, work, outcome, verdict)

    def _judge(self, frame: Frame, outcome: Outcome) -> Verdict:
        verdict = judge(
            outcome.ending,
            attempt=frame.attempt,
            seconds_left=frame.seconds_left(self._clock()),
            retry_after=outcome.retry_after,
            waits=self._limits.waits,
        )
        if outcome.ending is Ending.REFUSED and outcome.refusal:
            return Verdict(verdict.broker, outcome.refusal.status)
        return verdict

    def _ended_so(self, work: Work, ending: Ending) -> None:
        """Count it, say it, and let the next copy of the frame begin anew."""
        frame = work.frame
        place = self._places.get(frame.topic)
        (place.tally if place else self._meters.of("other")).ended(ending)
        if self._tell is not None:
            self._tell(frame, ending)
        if (place is None or place.joins) and self._running.get(frame.id.int) is work:
            del self._running[frame.id.int]

    def _end_repeat(self, repeat: Work, first: Work, outcome: Outcome, verdict: Verdict) -> None:
        """A copy that joined the running one: the same reply; the effects and events are the first one's."""
        self._meters.repeats += 1
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
            at_home = work.frame.kind == "log"
            with local_only(at_home):
                log.warning("holding", reason=str(outcome.error) or type(outcome.error).__name__)
            self._recovering = asyncio.get_running_loop().create_task(self._recover(at_home))

    async def _recover(self, at_home: bool) -> None:
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
        with local_only(at_home):
            log.warning("going_on", held=len(self._held))
        self._recovering = None
        held, self._held = self._held, deque()
        for work in held:
            self._track_of(self._places[work.frame.topic], work).waiting.append(work)
        await self._subscribe()
        for track in self._tracks:
            self._kick(track)

    def _tell_expired(self) -> None:
        """503 for frames whose deadline has passed and that certainly were not executed."""
        now = self._clock()
        for waiting in (self._held, *(track.waiting for track in self._tracks)):
            for work in [work for work in waiting if _expired(work, now)]:
                waiting.remove(work)
                refusal = RefusalBody(status=503, code="unavailable", detail="the database does not answer")
                if self._running.get(work.frame.id.int) is work:
                    del self._running[work.frame.id.int]
                self._places[work.frame.topic].tally.ended(Ending.AWAY)
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


def _own_track(route: Route) -> _Track | None:
    """Of a route with places of its own."""
    return _Track(route.places, most_waiting=route.most_waiting) if route.places else None


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
