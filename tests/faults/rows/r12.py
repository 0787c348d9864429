"""R12: nothing comes through between gateway and broker; unprotected, the inbox remembers nothing.

Devices ask for three seconds of patience and are answered at their end: the limit is a little above them.
"""

from __future__ import annotations

import asyncio

from tests.faults.row import Bare, Row
from tests.faults.scene import Scene

SILENT_SECONDS = 8


async def broken(scene: Scene) -> None:
    """Silence, then all that was held back at once."""
    cable = scene.cables["gateway"]

    async def silence() -> None:
        cable.freeze()
        await asyncio.sleep(SILENT_SECONDS)
        cable.thaw()

    for _ in range(scene.runs):
        await scene.strike(f"gateway-broker silent {SILENT_SECONDS} s", silence, lasts=True)
    scene.recovery(1, "first promise after healing s, worst")
    scene.worst_request(3.5)


ROW = Row(
    "R12",
    "black hole gateway-broker 8 s",
    broken,
    Bare("no inbox", {"FAULTS_INBOX": "off"}),
    faults=3,
    cables={"gateway": "services.gateway"},
)
