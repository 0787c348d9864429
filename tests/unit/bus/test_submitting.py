"""Whoever asks or submits is answered in time, however long the broker says nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from statistics import median

import pytest

from shared.bus.calls import EARLY_SECONDS, GRACE_SECONDS
from shared.bus.link import Outgoing, PublishUnknown, Settled
from shared.bus.requester import AGAIN_SECONDS, SWEEP_SECONDS, BusRequester
from shared.bus.requests import CallFailed, OutcomeUnknown
from tests.suites.probe import Add
from tests.suites.test_bus import caller

SECONDS = 0.3
MARGIN_SECONDS = GRACE_SECONDS + 2 * SWEEP_SECONDS + 1.0


class SilentLink:
    """Takes everything; what was taken first is not known to have arrived, of the rest nothing is heard."""

    account = "gateway"
    reply_address = "gateway.replies"

    def __init__(self, lost: int) -> None:
        self.settled: list[Settled] = []
        self._lost = lost

    def post(self, message: Outgoing, settled: Settled) -> None:
        self.settled.append(settled)
        if len(self.settled) <= self._lost:
            settled(PublishUnknown("no confirm"))

    def on_up(self, callback: Callable[[], None]) -> None: ...


@pytest.mark.parametrize("lost", [0, 1], ids=["first publish", "second publish"])
async def test_a_submit_without_a_confirm_ends_at_its_deadline(lost: int) -> None:
    link = SilentLink(lost)
    requester = BusRequester(link)  # type: ignore[arg-type]
    began = time.monotonic()
    with pytest.raises(OutcomeUnknown):
        await requester.submit(Add(text="a"), caller(seconds=SECONDS))
    assert SECONDS - AGAIN_SECONDS <= time.monotonic() - began < SECONDS + MARGIN_SECONDS
    assert len(link.settled) == lost + 1


async def test_a_confirm_after_the_deadline_changes_nothing() -> None:
    link = SilentLink(0)
    requester = BusRequester(link)  # type: ignore[arg-type]
    told: asyncio.Queue[BaseException | None] = asyncio.Queue()
    requester.begin_submit(Add(text="a"), caller(seconds=0.05), lambda _, error: told.put_nowait(error))
    assert isinstance(await asyncio.wait_for(told.get(), 5), OutcomeUnknown)
    for settled in link.settled:
        settled(None)
    await asyncio.sleep(0)
    assert told.empty()


@pytest.mark.parametrize("submits", [False, True])
async def test_a_deadline_is_kept_to_the_moment_and_not_to_the_next_look_at_all_of_them(
    submits: bool,
) -> None:
    requester = BusRequester(SilentLink(0))  # type: ignore[arg-type]

    async def late(seconds: float) -> float:
        send = requester.submit if submits else requester.ask
        began = time.monotonic()
        with pytest.raises(CallFailed):
            await send(Add(text="a"), caller(seconds=seconds))
        return time.monotonic() - began - seconds - GRACE_SECONDS + (0 if submits else EARLY_SECONDS)

    found: list[float] = []
    for _ in range(5):  # a busy machine is late now and then; looks at all of them would be late every time
        found.append(median(await asyncio.gather(*(late(0.2 + number / 100) for number in range(50)))))
        if found[-1] < SWEEP_SECONDS / 4:
            break
    assert -0.01 < found[-1] < SWEEP_SECONDS / 4, found
