"""How much of a ratio is chance: the limit beside a second one of itself."""

from __future__ import annotations

from benchmarks.contest import compared, rotate, their
from benchmarks.load import Request
from benchmarks.stage import Stage
from benchmarks.table import Row

SECONDS = 30
CALL = Request(method="POST", headers={"Content-Type": "application/json"}, body='{"text": "hello"}')
NOTE = "both are the same program: what lies between the least and the largest ratio is chance"


async def run(stage: Stage) -> list[Row]:
    """One row, without a target."""
    async with stage.peers("limit", "limit#2") as running:
        contenders = [their(stage, peer, CALL) for peer in running.values()]
        bursts = await rotate(stage, contenders, 64)
    return [compared("noise", "limit itself", 64, bursts["limit"], bursts["limit#2"], None, note=NOTE)]
