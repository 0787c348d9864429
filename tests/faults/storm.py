"""Many copies of the same request at once, each on a connection of its own."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

from tests.faults.scene import Scene
from tests.faults.wire import Answer, Wire

AGAIN_SECONDS = 0.2


@dataclass
class Storm:
    """How the copies were answered."""

    requests: int = 0
    unlike: int = 0
    running: int = 0
    failed: int = 0
    others_accepted: int = 0


async def storm(scene: Scene, values: int, copies: int, *, keyed: bool) -> Storm:
    """New readings, `copies` requests for each; 409 and 503 are asked again, as they say."""
    found = Storm()
    await asyncio.gather(*(_value(scene, copies, found, keyed) for _ in range(values)))
    return found


async def _value(scene: Scene, copies: int, found: Storm, keyed: bool) -> None:
    devices = scene.devices
    value, key = devices.begin()
    headers = {"X-API-Key": devices.target.write_key} | ({"Idempotency-Key": key} if keyed else {})
    bodies = await asyncio.gather(*(_one(scene, value, headers, found) for _ in range(copies)))
    entries = {json.dumps(body["entries"]) for body in bodies if body is not None}
    if keyed:
        found.unlike += len(entries) - 1 + sum(body is None for body in bodies)
        other = await _ask(scene, value + 1_000_000_000, headers)
        found.others_accepted += other.status != 422
    first = next(body for body in bodies if body is not None)
    devices.acknowledge(value, key, first["entries"][0]["entry"])


async def _one(scene: Scene, value: int, headers: dict[str, str], found: Storm) -> Any:
    while True:
        found.requests += 1
        answer = await _ask(scene, value, headers)
        if answer.status == 201:
            return answer.json()
        found.running += answer.status == 409
        found.failed += answer.status >= 500
        if answer.status not in (409, 503):
            return None
        await asyncio.sleep(AGAIN_SECONDS)


async def _ask(scene: Scene, value: int, headers: dict[str, str]) -> Answer:
    with Wire(scene.posthouse.url) as wire:
        path = f"/v1/datasets/{scene.devices.target.id}/readings"
        return await wire.ask("POST", path, {"values": {"n": value}}, headers)
