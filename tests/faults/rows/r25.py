"""R25: each reading sent five times at once under one key; unprotected, without the key."""

from __future__ import annotations

from tests.faults.row import Bare, Row
from tests.faults.scene import Scene
from tests.faults.storm import storm

VALUES, COPIES = 100, 5


async def broken(scene: Scene) -> None:
    """Every answer is the first one's; another body under the same key is refused."""
    found = [await _strike(scene, keyed=True) for _ in range(scene.runs)]
    scene.figure("requests in storms", sum(one.requests for one in found))
    scene.figure("answers unlike the first", sum(one.unlike for one in found), 0)
    scene.figure("other bodies accepted", sum(one.others_accepted for one in found), 0)
    scene.figure("answers 409 meanwhile", sum(one.running for one in found))


async def without_keys(scene: Scene) -> None:
    """The same storm as plain requests."""
    for _ in range(scene.runs):
        await _strike(scene, keyed=False)


async def _strike(scene: Scene, *, keyed: bool):
    found = []

    async def blow() -> None:
        found.append(await storm(scene, VALUES, COPIES, keyed=keyed))

    await scene.strike(f"{VALUES} readings sent {COPIES} times", blow)
    return found[0]


ROW = Row("R25", "each reading sent 5 times", broken, Bare("no keys", run=without_keys), faults=5, short=2)
