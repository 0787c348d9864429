"""R23: where dead letters go is missing for a minute, the queue, then the exchange; the poison waits for it.

Unprotected, a dead letter is sent once and believed to have arrived. Here it is the message itself that stays
in the queue it came from until its letter is confirmed: that depth is the one to grow.
"""

from __future__ import annotations

import asyncio
import time

from deploy.broker import declare
from shared.bus.topology import DEAD, service_queues
from tests.faults.alerts import told_of
from tests.faults.poison import POISON, Poison, letters, send_poison, told
from tests.faults.row import Bare, Row
from tests.faults.scene import Scene
from tests.journeys.instance import until_it_is

MISSING_SECONDS, SHORT_SECONDS = 60, 6
ALERT_SECONDS = 10
DRAINED_SECONDS = 200


async def broken(scene: Scene, seconds: float = MISSING_SECONDS) -> None:
    """Taken away, poisoned, made again: the poison lies there then, and nothing else does."""
    host = scene.posthouse.virtual_host
    places = (f"queues/{host}/dead.ingest", f"exchanges/{host}/{DEAD}")
    alerts, drained, lost = [], [], 0
    for number in range(scene.runs):
        sent: list[Poison] = []

        async def take_away(place: str = places[number % 2], sent: list[Poison] = sent) -> None:
            await scene.posthouse.management("DELETE", place)
            began = time.monotonic()
            poison = asyncio.create_task(send_poison(scene, "raises"))
            if place == places[0]:
                alerts.append(await told_of(scene, "dead.ingest", seconds))
            await asyncio.sleep(max(0.0, began + seconds - time.monotonic()))
            await declare(scene.posthouse.addresses["POSTHOUSE_AMQP_URL"], service_queues("ingest"))
            sent.append(await poison)

        what = "queue" if number % 2 == 0 else "exchange"
        words = f"dead-letter {what} missing {seconds:.0f} s"
        await scene.strike(words, take_away, promise="stored", lasts=True)
        drained.append(await _drained(scene, sent, DRAINED_SECONDS if seconds == MISSING_SECONDS else 10))
        lost += len(sent) - told(sent, await letters(scene), "failed")
    scene.figure("alert after s, worst", max(alerts), ALERT_SECONDS)
    scene.figure("there s after the repair, worst", max(drained), DRAINED_SECONDS)
    scene.figure("poison lost, or there twice", lost, 0)
    scene.recovery(5)


async def briefly(scene: Scene) -> None:
    """Long enough for a letter to be lost."""
    await broken(scene, SHORT_SECONDS)


async def _drained(scene: Scene, sent: list[Poison], most_seconds: float) -> float:
    began = time.monotonic()

    async def is_there() -> bool:
        return told(sent, await letters(scene), "failed") == len(sent)

    try:
        await until_it_is(is_there, "the poison is among the dead letters", most_seconds)
    except AssertionError:
        return most_seconds + 1
    return time.monotonic() - began


ROW = Row(
    "R23",
    "dead-letter queue, then exchange missing 60 s",
    broken,
    Bare(
        "dead letters sent once, unconfirmed",
        {"FAULTS_BURIED": "off"},
        run=briefly,
        shows="poison lost, or there twice",
        each=SHORT_SECONDS + 12,
    ),
    faults=2,
    bare_faults=1,
    each=MISSING_SECONDS + 5,
    beside="R14",
    environment=POISON,
    dead=None,
)
