"""R1: RabbitMQ is killed; unprotected, the gateway believes what it has written to a socket.

Devices ask for three seconds of patience and are answered at their end, so the limit of the slowest request
is a little above them; what had been sent is answered 504, its outcome unknown, what had not is answered 503.
"""

from __future__ import annotations

import time

from tests.faults.row import Bare, Row
from tests.faults.scene import Scene


async def broken(scene: Scene) -> None:
    """Kill the broker, wait for the next promise, see the backlog go."""
    drained = []
    for _ in range(scene.runs):
        await scene.strike("kill -9 rabbitmq", lambda: scene.kill("rabbitmq"), promise="stored")
        began = time.monotonic()
        await scene.drained()
        drained.append(time.monotonic() - began)
    scene.recovery(10)
    scene.figure("backlog gone s, worst", max(drained), 15)
    scene.worst_request(3.5)


ROW = Row(
    "R1",
    "kill -9 RabbitMQ",
    broken,
    Bare("confirms not waited for", {"FAULTS_IN": "services.gateway", "FAULTS_CONFIRMS": "off"}),
    kills_broker=True,
)
