"""R9: every process dies at once, servers included; unprotected, the inbox remembers nothing."""

from __future__ import annotations

import time

from tests.faults.row import Bare, Row
from tests.faults.scene import Scene

EVERYTHING = ("rabbitmq", "postgres", "redis", "auth", "ingest", "ingest-2", "gateway", "worker", "chat")


async def broken(scene: Scene) -> None:
    """As if somebody had pulled the plug, without the loss of what the disk has promised."""
    ready = []
    for _ in range(scene.runs):
        fault = await scene.strike("kill -9 everything", lambda: scene.kill(*EVERYTHING), promise="stored")
        await scene.posthouse.ready()
        ready.append(time.monotonic() - fault.began)
    scene.recovery(20)
    scene.figure("every process ready s, worst", max(ready), 20)


ROW = Row(
    "R9",
    "kill -9 everything at once",
    broken,
    Bare("no inbox", {"FAULTS_INBOX": "off"}, each=15),
    each=15,
    kills_broker=True,
)
