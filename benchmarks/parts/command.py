"""A persistent, confirmed command through the broker and back, beside what others build for that."""

from __future__ import annotations

from benchmarks.contest import against_each, compared, our, p50, rotate, their
from benchmarks.load import Request
from benchmarks.parts.noise import CALL
from benchmarks.stage import Stage
from benchmarks.table import Row, Target

SECONDS = 130
PATH = "/v1/services/chat/probes"
TARGETS: dict[str, Target | None] = {
    "limit": Target(0.45, 0.60),
    "faststream": Target(20),
    "celery_rpc": Target(15),
    "nameko_rpc": Target(15),
    "aio_pika_rpc": Target(8),
    "express_amqplib": Target(3),
    "express_amqplib_durable": None,
}
ALONE = {"express_amqplib": Target(1.0, lower=True), "express_amqplib_durable": None}
NOTE = "at 1 connection p50 in ms is compared: less is better"


async def request(stage: Stage) -> Request:
    """What is asked of ours."""
    headers = {"Content-Type": "application/json", **await stage.bearer()}
    return Request(path=PATH, method="POST", headers=headers, body='{"text": "hello"}')


async def run(stage: Stage) -> list[Row]:
    """All at 64 connections; ours and Express at one."""
    async with stage.peers(*TARGETS) as running:
        ours = our(stage, "ours", await request(stage))
        peers = {name: their(stage, peer, CALL) for name, peer in running.items()}
        bursts = await rotate(stage, [ours, *peers.values()], 64)
        rows = against_each(stage, "command", 64, bursts, "ours", TARGETS)
        express = [peers[name] for name in ALONE if name in peers]
        alone = await rotate(stage, [ours, *express], 1)
        for peer in express:
            pair = alone["ours"], alone[peer.name]
            target = ALONE[peer.name]
            rows.append(compared("command", peer.name, 1, *pair, target, measure=p50, note=NOTE))
    return rows
