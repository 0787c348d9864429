"""R25: readings and lists of them sent five times at once under one key; unprotected, without the key."""

from __future__ import annotations

from tests.faults.row import Bare, Row
from tests.faults.scene import Scene
from tests.faults.storm import Storm, storm

VALUES, COPIES = 100, 5
LISTS, IN_LIST = 20, 10


async def broken(scene: Scene) -> None:
    """Every answer is the first one's; another body under the same key is refused."""
    found = [await _strike(scene, keyed=True) for _ in range(scene.runs)]
    scene.figure("requests in storms", sum(one.requests for one in found))
    scene.figure("of lists", sum(one.requests for one in found[1::2]))
    scene.figure("answers unlike the first", sum(one.unlike for one in found), 0)
    scene.figure("other bodies accepted", sum(one.others_accepted for one in found), 0)
    scene.figure("answers 409 meanwhile", sum(one.running for one in found))


async def without_keys(scene: Scene) -> None:
    """The same storm as plain requests."""
    for _ in range(scene.runs):
        await _strike(scene, keyed=False)


async def _strike(scene: Scene, *, keyed: bool) -> Storm:
    found: list[Storm] = []

    async def blow() -> None:
        if len(scene.faults) % 2:
            found.append(await storm(scene, LISTS, COPIES, keyed=keyed, readings=IN_LIST))
        else:
            found.append(await storm(scene, VALUES, COPIES, keyed=keyed))

    what = f"{LISTS} lists of {IN_LIST}" if len(scene.faults) % 2 else f"{VALUES} readings"
    await scene.strike(f"{what} sent {COPIES} times", blow)
    return found[0]


ROW = Row("R25", "each reading sent 5 times", broken, Bare("no keys", run=without_keys), faults=6, short=2)
