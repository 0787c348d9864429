"""Ten times what the machine can take: what is promised stays promised, and devices come before browsing."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

import msgspec

from benchmarks.contest import our
from benchmarks.load import Request, WrongAnswers
from benchmarks.open_loop import Kind, Outcome, Plan, raw
from benchmarks.parts.write import JSON, OUR_READINGS, READING
from benchmarks.stage import Stage
from benchmarks.table import Row, Target

SECONDS = 60
TIMES = 10
STEADY_RATE, STEADY_CONNECTIONS = 200.0, 600
BROWSING, WRITES = "browsing", "device writes"
FLOOD_CONNECTIONS = {BROWSING: 1_600, WRITES: 400}
SHARE = {BROWSING: 0.8, WRITES: 0.2}
CHUNK = 5
NICE = 10
CALM_SECONDS, FLOOD_SECONDS, LEAD_SECONDS = 8.0, 15.0, 2.0
TARGET = Target(3.0, lower=True)
MIX = """
local made, turn = {}, 0
function init(args)
  for number = 1, 4 do made[number] = wrk.format("GET", paths[(number - 1) % #paths + 1]) end
  made[5] = wrk.format("POST", target, nil, body)
end
function request()
  turn = turn % 5 + 1
  return made[turn]
end
"""


async def run(stage: Stage) -> list[Row]:
    """A steady stream of device writes, alone and beside the flood."""
    dataset = await stage.dataset("overload")
    stage.progress.say("what the machine can take")
    capacity = await _capacity(stage, dataset)
    bearer = await stage.bearer()
    before = await _stored(stage)
    stage.progress.say("a steady stream alone")
    alone = (await _run(_steady(stage, dataset, bearer, CALM_SECONDS)))[WRITES]
    stage.progress.say(f"the same beside {capacity:,.0f} requests/s")
    calm, once = await _beside(stage, dataset, bearer, capacity)
    stage.progress.say(f"the same beside {TIMES} times that")
    busy, flooded = await _beside(stage, dataset, bearer, capacity * TIMES)
    promised = sum(each.accepted for each in (alone, calm, busy, once[WRITES], flooded[WRITES]))
    stored = await _stored(stage) - before
    if stored < promised:
        raise WrongAnswers(f"overload: {promised} writes were accepted, {stored} are stored")
    return _rows(capacity, alone, calm, busy, flooded, promised, stored)


async def _beside(
    stage: Stage, dataset: str, bearer: Mapping[str, str], rate: float
) -> tuple[Outcome, dict[str, Outcome]]:
    """The steady stream in the middle of a flood of this rate, and the flood."""
    flood = asyncio.create_task(_run(_flood(stage, dataset, bearer, rate)))
    try:
        await asyncio.sleep(LEAD_SECONDS)
        within = FLOOD_SECONDS - 2 * LEAD_SECONDS
        steady = (await _run(_steady(stage, dataset, bearer, within)))[WRITES]
        return steady, await flood
    finally:
        flood.cancel()


def _rows(
    capacity: float,
    alone: Outcome,
    calm: Outcome,
    busy: Outcome,
    flooded: Mapping[str, Outcome],
    promised: int,
    stored: int,
) -> list[Row]:
    if not calm.accepted or not busy.accepted:
        raise WrongAnswers(f"overload: no device write was accepted: {_told(calm)}; flooded: {_told(busy)}")
    ratio = busy.p99_ms / calm.p99_ms
    p99 = Row(
        part="overload",
        against=f"p99 of accepted device writes: at {TIMES} times / at what it can take",
        connections=STEADY_CONNECTIONS,
        ours=busy.p99_ms,
        theirs=calm.p99_ms,
        unit="ms",
        ratio=ratio,
        low=ratio,
        high=ratio,
        target=TARGET.value,
        lower=True,
        met=TARGET.met(ratio),
        note=f"steady stream of {STEADY_RATE:g}/s; p50/p99 alone {alone.p50_ms:.1f}/{alone.p99_ms:.1f} ms, "
        f"beside {capacity:,.0f}/s {calm.p50_ms:.1f}/{calm.p99_ms:.1f}, "
        f"beside {TIMES} times that {busy.p50_ms:.1f}/{busy.p99_ms:.1f}; then: {_told(busy)}",
    )
    lost = Row(
        part="overload",
        against="acknowledged and lost",
        ours=0.0,
        unit="rows",
        target=0.0,
        lower=True,
        met=True,
        note=f"{promised:,} writes accepted, {stored:,} rows stored",
    )
    kinds = [
        Row(
            part="overload",
            against=f"flood of {name}",
            connections=FLOOD_CONNECTIONS[name],
            ours=outcome.accepted / FLOOD_SECONDS,
            theirs=outcome.due / FLOOD_SECONDS,
            unit="/s",
            note=f"accepted of {SHARE[name]:.0%} of {TIMES} x {capacity:,.0f}/s: {_told(outcome)}",
        )
        for name, outcome in flooded.items()
    ]
    return [p99, lost, *kinds]


def _told(outcome: Outcome) -> str:
    statuses = ", ".join(f"{status}: {count:,}" for status, count in sorted(outcome.statuses.items()))
    waits = ", ".join(f"{text or 'none'}: {count:,}" for text, count in sorted(outcome.retry_after.items()))
    return (
        f"{outcome.due:,} due, {outcome.sent:,} sent, the others found no free connection; "
        f"answers {statuses or 'none'}; {outcome.unanswered:,} without an answer"
        + (f"; Retry-After {waits}" if waits else "")
    )


async def _stored(stage: Stage) -> int:
    connection = await stage.database()
    return int(await connection.fetchval(OUR_READINGS))


async def _capacity(stage: Stage, dataset: str) -> float:
    """Requests a second of the same mixture that 64 clients who wait for their answers get a 2xx for."""
    path = f"/v1/datasets/{dataset}/readings"
    paths = ", ".join(f'"{one}"' for one in _browsing(dataset))
    lua = f"local target, body, paths = '{path}', '{READING}', {{{paths}}}" + MIX
    request = Request(path=path, headers=JSON | await stage.bearer(), lua=lua)
    mix = our(stage, "mixture", request)
    for _ in range(2):  # the first warms up
        figures, _ = await stage.wrk.burst(mix.url, request, 64, 2)
    return (figures.requests - figures.status) / figures.seconds


def _browsing(dataset: str) -> list[str]:
    path = f"/v1/datasets/{dataset}"
    return [path, f"{path}/readings?limit=20", f"{path}/readings/latest", "/v1/datasets?limit=20"]


def _steady(stage: Stage, dataset: str, headers: Mapping[str, str], seconds: float) -> Plan:
    kind = Kind(
        name=WRITES,
        rate=STEADY_RATE,
        connections=STEADY_CONNECTIONS,
        requests=[_write(stage, dataset, headers)],
    )
    return _plan(stage, seconds, [kind])


def _flood(stage: Stage, dataset: str, headers: Mapping[str, str], rate: float) -> Plan:
    host = urlsplit(stage.url).netloc
    requests = {
        BROWSING: [raw("GET", path, host, headers) for path in _browsing(dataset)],
        WRITES: [_write(stage, dataset, headers)],
    }
    kinds = [
        Kind(
            name=name,
            rate=rate * SHARE[name],
            connections=FLOOD_CONNECTIONS[name],
            chunk=CHUNK,
            requests=requests[name],
        )
        for name in requests
    ]
    return _plan(stage, FLOOD_SECONDS, kinds, NICE)


def _write(stage: Stage, dataset: str, headers: Mapping[str, str]) -> str:
    host, path = urlsplit(stage.url).netloc, f"/v1/datasets/{dataset}/readings"
    return raw("POST", path, host, {**JSON, **headers}, READING)


def _plan(stage: Stage, seconds: float, kinds: Sequence[Kind], nice: int = 0) -> Plan:
    place = urlsplit(stage.url)
    return Plan(host=place.hostname or "", port=place.port or 80, seconds=seconds, kinds=kinds, nice=nice)


async def _run(plan: Plan) -> dict[str, Outcome]:
    """The plan in a process of its own."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "benchmarks.open_loop", msgspec.json.encode(plan).decode()),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        output, _ = await child.communicate()
    except asyncio.CancelledError:
        child.kill()
        await child.wait()
        raise
    if child.returncode != 0:
        raise WrongAnswers(f"overload: the load ended with exit code {child.returncode}")
    return msgspec.json.decode(output.splitlines()[-1], type=dict[str, Outcome])
