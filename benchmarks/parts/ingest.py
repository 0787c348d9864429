"""One reading for each request: answered after the commit, and answered after the broker has it."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import msgspec

from benchmarks.contest import Burst, Contender, against_each, counting, our, rotate, their
from benchmarks.load import Request
from benchmarks.parts.write import JSON, OUR_READINGS, READING, readings, their_readings
from benchmarks.stage import Running, Stage
from benchmarks.table import Row, Target

SECONDS = 90
COMMITTED = {"fastapi_insert": Target(4), "express_pg": Target(2.5), "limit": Target(0.50)}
ACCEPTED = COMMITTED | {"limit": Target(0.60)}


async def run(stage: Stage) -> list[Row]:
    """Both ways against the same bursts of the peers."""
    committed = await readings(stage, await stage.dataset("committed"))
    accepted = await readings(stage, await stage.dataset("accepted"))
    later = msgspec.structs.replace(accepted, headers={**accepted.headers, "Prefer": "respond-async"})
    stored = counting(stage, OUR_READINGS)
    ours = [
        our(stage, "201", committed, stored),
        our(stage, "202", later, stored, until_stored=True),
    ]
    async with stage.peers(*COMMITTED) as running:
        bursts = await rotate(stage, [*ours, *(_peer(stage, peer) for peer in running.values())], 64)
    await stage.check_rows()
    return [
        *against_each(stage, "ingest 201", 64, bursts, "201", COMMITTED, "after the commit"),
        *against_each(stage, "ingest 202", 64, bursts, "202", ACCEPTED, _drained(bursts["202"])),
    ]


def _peer(stage: Stage, peer: Running) -> Contender:
    if peer.name == "limit":
        return their(stage, peer, Request(method="POST", headers=JSON, body=READING))
    ask = Request(path="/readings", method="POST", headers=JSON, body=READING)
    return their(stage, peer, ask, counting(stage, their_readings(stage, peer), "bench"))


def _drained(bursts: Sequence[Burst]) -> str:
    accepted = statistics.median(burst.figures.requests / burst.figures.seconds for burst in bursts)
    drain = statistics.median(burst.drain for burst in bursts)
    return (
        f"until the last accepted one is stored; accepted {accepted:,.0f}/s, then {drain:.2f} s until stored"
    )
