"""Coalescing: what waits while two publishes are in flight leaves in one AMQP message, without a timer."""

from __future__ import annotations

import asyncio
from collections import deque

import msgspec

from shared.bus.codec import MOST_BYTES, MOST_FRAMES, join
from shared.bus.link import Link, Outgoing, Settled

IN_FLIGHT = 2


class Lane(msgspec.Struct, frozen=True, gc=False):
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
        self._settled = asyncio.Event()

    def send(self, lane: Lane, encoded: bytes, settled: Settled, *, remaining_ms: int = 0) -> None:
        """Queue one frame; alone it leaves on the next turn of the loop."""
        waiting = self._lanes.get(lane)
        if waiting is None:
            waiting = self._lanes[lane] = _Waiting()
        waiting.frames.append((encoded, remaining_ms, settled))
        if not waiting.scheduled and waiting.in_flight < IN_FLIGHT:
            self._schedule(lane, waiting)

    async def idle(self) -> None:
        """Return when everything sent has been settled."""
        while self._lanes:
            self._settled.clear()
            await self._settled.wait()

    def _schedule(self, lane: Lane, waiting: _Waiting) -> None:
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
        waiting.in_flight += 1
        self._post(lane, waiting, taken, longest)
        if frames and waiting.in_flight < IN_FLIGHT:
            self._schedule(lane, waiting)

    def _post(
        self, lane: Lane, waiting: _Waiting, taken: list[tuple[bytes, int, Settled]], longest_ms: int
    ) -> None:
        message = Outgoing(
            lane.exchange,
            lane.key,
            join([encoded for encoded, _, _ in taken]),
            persistent=lane.persistent,
            mandatory=lane.mandatory,
            reply_to=lane.reply_to,
            expiration_ms=longest_ms if lane.expires else 0,
        )

        def settled(error: BaseException | None) -> None:
            waiting.in_flight -= 1
            if not waiting.frames:
                if not waiting.in_flight:
                    del self._lanes[lane]
                    self._settled.set()
            elif not waiting.scheduled:
                self._schedule(lane, waiting)
            for _, _, each in taken:
                each(error)

        self._link.post(message, settled)
