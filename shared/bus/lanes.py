"""Coalescing: what waits while two publishes are in flight leaves in one AMQP message, without a timer."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from shared.bus.codec import MOST_BYTES, MOST_FRAMES, join
from shared.bus.link import Link, Outgoing

IN_FLIGHT = 2
Settled = Callable[[BaseException | None], None]


@dataclass(frozen=True)
class Lane:
    """Where frames that may share a message go: everything about the message but its body."""

    exchange: str
    key: str
    reply_to: str = ""
    persistent: bool = True
    expires: bool = False
    mandatory: bool = True


class _Waiting:
    """The frames of one lane that have not left yet."""

    __slots__ = ("frames", "in_flight", "scheduled")

    def __init__(self) -> None:
        self.frames: deque[tuple[bytes, int, Settled]] = deque()
        self.in_flight = 0
        self.scheduled = False


class Lanes:
    """Sends encoded frames; each frame's `settled` is called once: None when confirmed, else the error."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._lanes: dict[Lane, _Waiting] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def send(self, lane: Lane, encoded: bytes, settled: Settled, *, remaining_ms: int = 0) -> None:
        """Queue one frame; alone it leaves on the next turn of the loop."""
        waiting = self._lanes.get(lane)
        if waiting is None:
            waiting = self._lanes[lane] = _Waiting()
        waiting.frames.append((encoded, remaining_ms, settled))
        self._schedule(lane, waiting)

    async def idle(self) -> None:
        """Return when everything sent has been settled."""
        while self._tasks or any(waiting.frames for waiting in self._lanes.values()):
            await asyncio.sleep(0)
            if self._tasks:
                await asyncio.wait(set(self._tasks), return_when=asyncio.FIRST_COMPLETED)

    def _schedule(self, lane: Lane, waiting: _Waiting) -> None:
        if waiting.in_flight < IN_FLIGHT and not waiting.scheduled and waiting.frames:
            waiting.scheduled = True
            asyncio.get_running_loop().call_soon(self._flush, lane, waiting)

    def _flush(self, lane: Lane, waiting: _Waiting) -> None:
        waiting.scheduled = False
        taken: list[tuple[bytes, int, Settled]] = []
        size = longest = 0
        frames = waiting.frames
        while frames and len(taken) < MOST_FRAMES:
            encoded, remaining_ms, _ = frames[0]
            if taken and size + len(encoded) > MOST_BYTES:
                break
            size += len(encoded)
            longest = max(longest, remaining_ms)
            taken.append(frames.popleft())
        if not taken:
            return
        waiting.in_flight += 1
        task = asyncio.get_running_loop().create_task(self._publish(lane, waiting, taken, longest))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._schedule(lane, waiting)

    async def _publish(
        self, lane: Lane, waiting: _Waiting, taken: list[tuple[bytes, int, Settled]], longest_ms: int
    ) -> None:
        error: BaseException | None = None
        message = Outgoing(
            lane.exchange,
            lane.key,
            join([encoded for encoded, _, _ in taken]),
            persistent=lane.persistent,
            mandatory=lane.mandatory,
            reply_to=lane.reply_to,
            expiration_ms=longest_ms if lane.expires else 0,
        )
        try:
            await self._link.publish(message)
        except Exception as failure:
            error = failure
        waiting.in_flight -= 1
        for _, _, settled in taken:
            settled(error)
        if waiting.frames:
            self._schedule(lane, waiting)
        elif not waiting.in_flight:
            self._lanes.pop(lane, None)
