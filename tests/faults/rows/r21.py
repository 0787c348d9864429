"""R21: one message that always fails, among many; unprotected, it takes its neighbours along."""

from __future__ import annotations

import time

from tests.faults.row import Bare, Row
from tests.faults.scene import Scene, percentile
from tests.faults.wire import Answer, Wire

NEIGHBOURS_SECONDS = 1.0


async def broken(scene: Scene) -> None:
    """It ends among the dead letters at once, with its reason; the others are done."""
    statuses = []

    async def poison() -> None:
        statuses.append((await send_poison(scene, "raises")).status)

    for _ in range(scene.runs):
        await scene.strike("a poison message", poison, promise="stored")
    samples = scene.devices.samples
    beside = [
        one.seconds
        for fault in scene.faults
        for one in samples
        if abs(one.sent_at - fault.began) < NEIGHBOURS_SECONDS
    ]
    usual = percentile([one.seconds for one in samples], 0.99)
    scene.figure("p99 beside it s", percentile(beside, 0.99), max(2 * usual, 0.5))
    scene.figure("p99 usually s", usual)
    scene.figure("answers other than 500", sum(status != 500 for status in statuses), 0)
    scene.recovery(1)


async def send_poison(scene: Scene, kind: str, prefer: str = "wait=10") -> Answer:
    """A reading whose handler raises, or ends its process."""
    target = scene.devices.target
    name = f"poison-{kind}-{time.monotonic_ns()}"
    headers = {
        "X-API-Key": target.write_key,
        "Prefer": prefer,
        "X-Request-Id": name,
        "Idempotency-Key": name,
    }
    with Wire(scene.posthouse.url) as wire:
        path = f"/v1/datasets/{target.id}/readings"
        return await wire.ask("POST", path, {"values": {"n": -1}}, headers)


POISON = {"FAULTS_POISON": "on"}
ROW = Row(
    "R21",
    "a message that always fails",
    broken,
    Bare("a batch that fails is not tried one by one", POISON | {"FAULTS_ALONE": "off"}),
    environment=POISON,
    faults=5,
    dead=1,
)
