"""A query through the broker and back, beside an HTTP handler with nothing behind it."""

from __future__ import annotations

from benchmarks.contest import against_each, our, rotate, their
from benchmarks.load import Request
from benchmarks.parts.noise import CALL
from benchmarks.stage import Stage
from benchmarks.table import Row, Target

SECONDS = 55
PATH = "/v1/services/chat"
TARGETS = {64: Target(0.55, 0.60), 16: Target(0.40, 0.45)}


async def run(stage: Stage) -> list[Row]:
    """GET with a bearer token; the service answers without a database."""
    rows: list[Row] = []
    async with stage.peers("limit") as running:
        ask = Request(path=PATH, headers=await stage.bearer())
        contenders = [our(stage, "ours", ask)] + [their(stage, peer, CALL) for peer in running.values()]
        for connections, target in TARGETS.items():
            bursts = await rotate(stage, contenders, connections)
            rows += against_each(stage, "query", connections, bursts, "ours", {"limit": target})
    return rows
