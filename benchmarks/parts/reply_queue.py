"""One reply queue for a gateway, beside one for every request."""

from __future__ import annotations

from benchmarks.contest import Contender, compared, our, rotate
from benchmarks.parts.command import request
from benchmarks.stage import Stage
from benchmarks.table import Row

SECONDS = 65
NOTE = "figure: `POSTHOUSE_REPLY_QUEUE` is `shared` for ours, `request` for theirs"


async def run(stage: Stage) -> list[Row]:
    """The same instance, two gateways."""
    rows: list[Row] = []
    ask = await request(stage)
    async with stage.second_gateway(POSTHOUSE_REPLY_QUEUE="request") as second:
        behind = {name: pids for name, pids in stage.pids.items() if name != "gateway"}
        contenders = [our(stage, "shared", ask), Contender("request", second.url, ask, behind | second.pids)]
        for connections in (16, 64):
            bursts = await rotate(stage, contenders, connections)
            pair = bursts["shared"], bursts["request"]
            rows.append(compared("reply-queue", "one for a request", connections, *pair, None, note=NOTE))
    return rows
