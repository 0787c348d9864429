"""Contenders take turns in short bursts; what they answered is counted against what they stored."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks import machine
from benchmarks.load import Figures, Request, Wrk, WrongAnswers
from benchmarks.stage import Running, Stage
from benchmarks.table import Cost, Ratio, Row, Target, judged, ratio_of

SETTLE_SECONDS = 60.0
STILL_SECONDS = 0.5
LOOK_SECONDS = 0.02
SERVERS = ("rabbitmq", "postgres")

Count = Callable[[], Awaitable[int]]


@dataclass(frozen=True)
class Contender:
    """Whom to ask what, whose CPU to count, and how many rows are stored so far, where it stores any."""

    name: str
    url: str
    request: Request
    pids: Mapping[str, Sequence[int]]
    stored: Count | None = None
    rows: int = 1
    """Rows each request stores; rates are of rows."""
    until_stored: bool = False
    """It answers before it stores: the clock runs until the last accepted row is there."""


@dataclass(frozen=True)
class Burst:
    """One burst of one contender."""

    figures: Figures
    rate: float
    drain: float
    cpu: Mapping[str, float]

    @property
    def p50_ms(self) -> float:
        """The median latency."""
        return self.figures.p50 / 1000


Bursts = Mapping[str, Sequence[Burst]]


async def burst(wrk: Wrk, contender: Contender, connections: int, seconds: int) -> Burst:
    """One burst, checked: no wrong status, and stored what was answered; raises WrongAnswers."""
    before = await contender.stored() if contender.stored else 0
    cpu = machine.cpu_seconds(contender.pids)
    figures, client = await wrk.burst(contender.url, contender.request, connections, seconds)
    if not contender.until_stored:
        cpu = machine.spent(cpu, machine.cpu_seconds(contender.pids))
    if figures.wrong:
        said = await wrk.wrong_answer(contender.url, contender.request, connections)
        raise WrongAnswers(
            f"{contender.name}: {figures.wrong} of {figures.requests} are wrong. {said or figures}"
        )
    drain = await _settle(contender, before, figures.requests, connections) if contender.stored else 0.0
    if contender.until_stored:
        cpu = machine.spent(cpu, machine.cpu_seconds(contender.pids))
    else:
        drain = 0.0
    rate = figures.requests * contender.rows / (figures.seconds + drain)
    return Burst(figures, rate, drain, cpu | {"client": client})


async def _settle(contender: Contender, before: int, answered: int, connections: int) -> float:
    """Wait until all that was answered is stored; answers how long that took.

    A burst ends with a request under way on each connection: those may be stored as well, and no others.
    """
    assert contender.stored is not None
    began = time.monotonic()
    reached = 0.0
    seen, still_since = -1, began
    while True:
        now = await contender.stored() - before
        if now >= answered * contender.rows and not reached:
            reached = time.monotonic() - began
        if now != seen:
            still_since = time.monotonic()
        elif reached and time.monotonic() - still_since > STILL_SECONDS:
            break  # what was under way at the end is not to count for the next burst
        if time.monotonic() - began > SETTLE_SECONDS:
            raise WrongAnswers(
                f"{contender.name}: {answered * contender.rows} rows were answered, {now} are stored"
            )
        seen = now
        await asyncio.sleep(LOOK_SECONDS)
    if now > (answered + connections) * contender.rows:
        raise WrongAnswers(f"{contender.name}: {answered} requests were answered, {now} rows are stored")
    return reached


async def rotate(stage: Stage, contenders: Sequence[Contender], connections: int) -> dict[str, list[Burst]]:
    """Warm all up, then burst after burst in rotation; who begins changes from rotation to rotation."""
    progress = stage.progress
    for contender in contenders:
        progress.say(f"{contender.name}, warm-up")
        await burst(stage.wrk, contender, connections, 1)
    bursts: dict[str, list[Burst]] = {contender.name: [] for contender in contenders}
    for turn in range(stage.rotations):
        first = turn % len(contenders)
        for contender in [*contenders[first:], *contenders[:first]]:
            progress.say(f"{contender.name}, {connections} connections, {turn + 1} of {stage.rotations}")
            bursts[contender.name].append(await burst(stage.wrk, contender, connections, stage.seconds))
    return bursts


def rate(burst: Burst) -> float:
    """Requests, or rows, a second."""
    return burst.rate


def p50(burst: Burst) -> float:
    """The median latency in ms."""
    return burst.p50_ms


def compared(
    part: str,
    against: str,
    connections: int,
    ours: Sequence[Burst],
    theirs: Sequence[Burst],
    target: Target | None,
    *,
    measure: Callable[[Burst], float] = rate,
    note: str = "",
) -> Row:
    """One row: medians of both, and of the ratios inside the rotations."""
    row = Row(
        part=part,
        against=against,
        connections=connections,
        ours=statistics.median(map(measure, ours)),
        theirs=statistics.median(map(measure, theirs)),
        unit="/s" if measure is rate else "ms",
        cost=cost(ours),
        their_cost=cost(theirs),
        note=note,
    )
    return judged(row, spread(ours, theirs, measure), target)


def spread(ours: Sequence[Burst], theirs: Sequence[Burst], measure: Callable[[Burst], float] = rate) -> Ratio:
    """The ratios inside each rotation."""
    return ratio_of(zip(map(measure, ours), map(measure, theirs), strict=True))


def cost(bursts: Sequence[Burst]) -> Cost:
    """Median latencies, and CPU seconds for 1,000 requests over all bursts."""
    requests = sum(burst.figures.requests for burst in bursts)
    if not requests:
        raise WrongAnswers(f"not one answer in {len(bursts)} bursts")
    names = {name for burst in bursts for name in burst.cpu}
    return Cost(
        statistics.median(burst.p50_ms for burst in bursts),
        statistics.median(burst.figures.p99 / 1000 for burst in bursts),
        {name: sum(burst.cpu[name] for burst in bursts) / requests * 1000 for name in sorted(names)},
    )


def against_each(
    stage: Stage,
    part: str,
    connections: int,
    bursts: Bursts,
    ours: str,
    targets: Mapping[str, Target | None],
    note: str = "",
) -> list[Row]:
    """A row for each peer; one that is missing says why."""
    return [
        compared(part, name, connections, bursts[ours], bursts[name], target, note=note)
        if name in bursts
        else Row(part=part, against=name, connections=connections, note=f"missing: {stage.missing[name]}")
        for name, target in targets.items()
    ]


def our(stage: Stage, name: str, request: Request, stored: Count | None = None, **more: object) -> Contender:
    """A contender that is our instance."""
    return Contender(name, stage.url, request, stage.pids, stored, **more)  # type: ignore[arg-type]


def their(
    stage: Stage, peer: Running, request: Request, stored: Count | None = None, **more: object
) -> Contender:
    """A contender that is a peer, with the servers it shares with us."""
    servers = {name: pids for name, pids in stage.pids.items() if name in SERVERS}
    return Contender(peer.name, peer.url, request, peer.pids | servers, stored, **more)  # type: ignore[arg-type]


def counting(stage: Stage, sql: str, database: str = "") -> Count:
    """A count that a statement answers."""

    async def stored() -> int:
        connection = await stage.database(database)
        return int(await connection.fetchval(sql))

    return stored


def present(running: Mapping[str, Running], names: Iterable[str]) -> list[Running]:
    """Those of these peers that have started."""
    return [running[name] for name in names if name in running]
