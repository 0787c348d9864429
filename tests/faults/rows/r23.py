"""R23: where dead letters go is missing for a while, the queue or the exchange; the poison waits for it."""

from __future__ import annotations

import asyncio

from deploy.broker import declare
from shared.bus.topology import DEAD, service_queues
from tests.faults.row import Row
from tests.faults.rows.r21 import POISON, send_poison
from tests.faults.scene import Scene
from tests.journeys.instance import until_it_is

MISSING_SECONDS = 10


async def broken(scene: Scene) -> None:
    """Taken away, poisoned, made again: the poison lies there then, and nothing else does."""
    host = scene.posthouse.virtual_host
    places = (f"queues/{host}/dead.ingest", f"exchanges/{host}/{DEAD}")
    wrong = 0
    for number in range(scene.runs):

        async def take_away(place: str = places[number % 2]) -> None:
            await scene.posthouse.management("DELETE", place)
            poison = asyncio.create_task(send_poison(scene, "raises"))
            await asyncio.sleep(MISSING_SECONDS)
            await declare(scene.posthouse.addresses["POSTHOUSE_AMQP_URL"], service_queues("ingest"))
            await poison

        before = await scene.posthouse.depth("dead.ingest")
        expected = 1 if number % 2 == 0 else before + 1

        async def is_there(expected: int = expected) -> bool:
            return await scene.posthouse.depth("dead.ingest") >= expected

        what = "queue" if number % 2 == 0 else "exchange"
        await scene.strike(f"dead-letter {what} missing", take_away, promise="stored", lasts=True)
        await until_it_is(is_there, "the poison is among the dead letters", 30)
        wrong += await scene.posthouse.depth("dead.ingest") != expected
    scene.figure("other than one dead letter for a poison", wrong, 0)
    scene.recovery(5)


ROW = Row(
    "R23",
    "dead-letter queue, then exchange missing 10 s",
    broken,
    None,
    faults=2,
    environment=POISON,
    dead=None,
)
