"""Many copies of the same request at once, each on a connection of its own."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

from tests.faults.scene import Scene
from tests.faults.wire import Answer, Wire

AGAIN_SECONDS = 0.2
NEVER_SENT = 1_000_000_000


@dataclass
class Storm:
    """How the copies were answered."""

    requests: int = 0
    unlike: int = 0
    running: int = 0
    failed: int = 0
    others_accepted: int = 0


async def storm(scene: Scene, requests: int, copies: int, *, keyed: bool, readings: int = 1) -> Storm:
    """New requests of so many readings each, every one of them `copies` times; what is told to wait waits."""
    found = Storm()
    await asyncio.gather(*(_request(scene, readings, copies, found, keyed) for _ in range(requests)))
    return found


async def _request(scene: Scene, readings: int, copies: int, found: Storm, keyed: bool) -> None:
    devices = scene.devices
    begun = [devices.begin() for _ in range(readings)]
    values, key = [value for value, _ in begun], begun[0][1]
    headers = {"X-API-Key": devices.target.write_key} | ({"Idempotency-Key": key} if keyed else {})
    bodies = await asyncio.gather(*(_one(scene, values, headers, found) for _ in range(copies)))
    answered = [body for body in bodies if body is not None]
    if keyed:
        different = {json.dumps(body["entries"]) for body in answered}
        found.unlike += len(different) - 1 + len(bodies) - len(answered)
        other = await _ask(scene, [value + NEVER_SENT for value in values], headers)
        found.others_accepted += other.status != 422
    entries = answered[0]["entries"]
    for (value, each), stored in zip(begun, entries, strict=True):
        devices.acknowledge(value, each, stored["entry"])


async def _one(scene: Scene, values: list[int], headers: dict[str, str], found: Storm) -> Any:
    while True:
        found.requests += 1
        answer = await _ask(scene, values, headers)
        if answer.status == 201:
            return answer.json()
        found.running += answer.status == 409
        found.failed += answer.status >= 500
        if answer.status not in (409, 503):
            return None
        await asyncio.sleep(AGAIN_SECONDS)


async def _ask(scene: Scene, values: list[int], headers: dict[str, str]) -> Answer:
    readings = [{"values": {"n": value}} for value in values]
    with Wire(scene.posthouse.url) as wire:
        path = f"/v1/datasets/{scene.devices.target.id}/readings"
        return await wire.ask("POST", path, readings[0] if len(readings) == 1 else readings, headers)
