"""What an administrator is told about a queue, and how soon: what the page of operations is made of."""

from __future__ import annotations

import asyncio
import time

from tests.faults.scene import Scene
from tests.faults.wire import NoAnswer, NotSent, Wire

LOOK_SECONDS = 0.2


async def told_of(scene: Scene, queue: str, most_seconds: float) -> float:
    """Seconds until the queue is shown as missing, and as bad; `most_seconds` when it never was."""
    began = time.monotonic()
    headers = {"Authorization": f"Bearer {scene.token}"}
    with Wire(scene.posthouse.url) as wire:
        while time.monotonic() - began < most_seconds:
            try:
                answer = await wire.ask("GET", "/v1/queues", headers=headers)
            except (NotSent, NoAnswer):
                answer = None
            items = answer.json()["items"] if answer is not None and answer.status == 200 else []
            if any((one["name"], one["state"], one["level"]) == (queue, "missing", "bad") for one in items):
                return time.monotonic() - began
            await asyncio.sleep(LOOK_SECONDS)
    return most_seconds
