"""R26: fifty parallel requests with one key; unprotected, without the key."""

from __future__ import annotations

from tests.faults.row import Bare, Row
from tests.faults.scene import Scene
from tests.faults.storm import storm

COPIES = 50


async def broken(scene: Scene) -> None:
    """One effect, fifty equal answers."""
    found = []

    async def race() -> None:
        found.append(await storm(scene, 1, COPIES, keyed=True))

    for _ in range(scene.runs):
        await scene.strike(f"{COPIES} requests with one key", race)
    scene.figure("answers unlike the first", sum(one.unlike for one in found), 0)
    scene.figure("answers 409 meanwhile", sum(one.running for one in found))
    scene.figure("answers 5xx", sum(one.failed for one in found), 0)


async def without_keys(scene: Scene) -> None:
    """The same as plain requests."""
    for _ in range(scene.runs):
        await scene.strike(f"{COPIES} requests without a key", lambda: storm(scene, 1, COPIES, keyed=False))


ROW = Row(
    "R26",
    "50 parallel requests, one key",
    broken,
    Bare("no keys", run=without_keys),
    faults=6,
    short=2,
    beside="R25",
)
