"""R3: ingest dies between its commit and its ack; unprotected, the inbox remembers nothing.

The scoreboard has 200 deaths and 200 deliveries again, one for each; a row has 20 of both, ten seconds apart.
"""

from __future__ import annotations

from tests.faults.kills import LEAST_IN_FLIGHT
from tests.faults.row import Bare, Row
from tests.faults.scene import Fault, Scene
from tests.journeys.instance import until

TRIES = 40


async def broken(scene: Scene) -> None:
    """Let a process die after one of its next commits; deaths with too little in flight do not count."""
    for _ in range(TRIES):
        if len(scene.faults) == scene.runs:
            break
        fault = await _die(scene, scene.dice.randint(1, 8))
        if fault.in_flight < LEAST_IN_FLIGHT:
            scene.faults.remove(fault)
        await scene.posthouse.ready()
    scene.recovery(10)
    deaths = len(scene.faults)
    scene.figure("messages delivered again", await scene.redelivered("ingest", deaths), least=deaths)


async def _die(scene: Scene, commits: int) -> Fault:
    whole = scene.trigger.with_suffix(".new")

    async def die() -> None:
        whole.write_text(str(commits))
        whole.rename(scene.trigger)
        await until(lambda: not scene.trigger.exists(), f"{commits} commits")

    return await scene.strike(f"ingest, {commits} commits on, before its ack", die, promise="stored")


HOOK = {"FAULTS_KILL_FILE": "{directory}/trigger"}
ROW = Row(
    "R3",
    "ingest dies between commit and ack",
    broken,
    Bare("no inbox", HOOK | {"FAULTS_INBOX": "off"}),
    environment=HOOK,
)
