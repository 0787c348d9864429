"""Load shedding: whether one more call to a service would only make everybody wait longer."""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from shared.bus.requests import Overloaded
from shared.bus.topology import MOST_MESSAGES, SHED_AT, SHED_QUERIES_AT

# Wait for an answer, wait for an effect, wait only until it is on disk.
Want = Literal["ask", "change", "queue"]
# A delay that even the quickest answer has, again and again, is a queue and not a slow call (the idea of
# CoDel, RFC 8289). Some calls are never refused, however slow: nobody would be helped.
ASK_SECONDS, ASK_CALLS = 0.04, 64
CHANGE_SECONDS, CHANGE_CALLS = 0.05, 256
SLOW_TURNS = 4
# No answer at all is an outage, which calls wait out inside their deadlines: only so many of them.
SILENT_SECONDS, SILENT_CALLS = 1.0, 1_024
FEWER, MORE, UNLIMITED = 0.8, 16, 10_000
LONGEST_RETRY_SECONDS = 30


class Depth(msgspec.Struct):
    """What a watched queue looked like last; `falling` is how many messages fewer there are each second."""

    messages: int = 0
    consumers: int = 0
    present: bool = True
    falling: float = 0.0


class Flow:
    """The calls of one service for one want: how many are on their way, and what the quickest answer took.

    `delay_seconds` is the shortest answer of the last turn, 0 when it had none; `most` may be on their way.
    """

    __slots__ = (
        "_answered",
        "_quickest",
        "_silent_seconds",
        "_slow_turns",
        "delay_seconds",
        "in_flight",
        "most",
        "rate",
    )

    def __init__(self) -> None:
        self.in_flight = 0
        self.most = math.inf
        self.delay_seconds = 0.0
        self.rate = 0.0
        self._answered = 0
        self._quickest = math.inf
        self._silent_seconds = 0.0
        self._slow_turns = 0

    def began(self) -> None:
        """One more is on its way."""
        self.in_flight += 1

    def ended(self, seconds: float) -> None:
        """One was answered, or its time was over."""
        self.in_flight -= 1
        self._answered += 1
        if seconds < self._quickest:
            self._quickest = seconds

    def gone(self) -> None:
        """Nobody waits for one any more."""
        self.in_flight -= 1

    def turn(self, seconds: float) -> None:
        """Another so many seconds are over."""
        self.delay_seconds = self._quickest if self._answered else 0.0
        self._silent_seconds = 0.0 if self._answered or not self.in_flight else self._silent_seconds + seconds
        self.rate += 0.3 * (self._answered / seconds - self.rate)
        self._answered = 0
        self._quickest = math.inf

    def limit(self, is_slow: bool, least: int) -> None:
        """Let fewer be on their way while even the quickest wait, more again when they do not."""
        self._slow_turns = self._slow_turns + 1 if is_slow else 0
        if self._slow_turns >= SLOW_TURNS:
            self.most = max(least, min(self.most, self.in_flight) * FEWER)
        elif self._silent_seconds > SILENT_SECONDS:
            self.most = min(self.most, SILENT_CALLS)
        elif self.in_flight and self.most < UNLIMITED:
            self.most += MORE
        else:
            self.most = math.inf

    @property
    def is_idle(self) -> bool:
        """Whether nothing is on its way and nothing is remembered."""
        return not self.in_flight and not self.delay_seconds and self.most == math.inf


class Pressure:
    """Refuses calls to a service that is asked more than it can answer: asking before changing."""

    def __init__(self) -> None:
        self.depths: dict[str, Depth] = {}
        self._flows: dict[tuple[str, Want], Flow] = {}

    def flow(self, service: str, want: Want) -> Flow:
        """The calls of one service for one want."""
        found = self._flows.get((service, want))
        if found is None:
            found = self._flows[service, want] = Flow()
        return found

    def admit(self, service: str, want: Want) -> Flow:
        """The flow to count a new call in; raises Overloaded with an honest `retry_after`."""
        depth = self.depths.get(service)
        if depth is not None:
            most = MOST_MESSAGES * (SHED_QUERIES_AT if want == "ask" else SHED_AT)
            if depth.messages > most:
                seconds = _seconds((depth.messages - most) / depth.falling if depth.falling > 0 else math.inf)
                raise Overloaded("the queue of this service is nearly full", seconds)
        flow = self.flow(service, want)
        if flow.in_flight >= flow.most:
            seconds = _seconds(flow.in_flight / flow.rate if flow.rate > 0 else math.inf)
            raise Overloaded("more is being asked of this service than it can answer", seconds)
        return flow

    @property
    def is_idle(self) -> bool:
        """Whether nothing is on its way and every limit is forgotten."""
        return all(flow.is_idle for flow in self._flows.values())

    def turn(self, seconds: float) -> None:
        """Another so many seconds are over; called many times a second until everything is idle."""
        for flow in self._flows.values():
            flow.turn(seconds)
        for (service, want), flow in self._flows.items():
            if want == "ask":
                flow.limit(self._is_slow(service, ASK_SECONDS, "ask", "change", "queue"), ASK_CALLS)
            else:
                flow.limit(self._is_slow(service, CHANGE_SECONDS, want), CHANGE_CALLS)

    def _is_slow(self, service: str, seconds: float, *wants: Want) -> bool:
        flows = [self._flows[service, want] for want in wants if (service, want) in self._flows]
        return any(flow.delay_seconds > seconds for flow in flows)

    def saw(self, queue: str, messages: int, consumers: int, seconds: float) -> None:
        """A watched queue was looked at, `seconds` after the last time."""
        before = self.depths.get(queue)
        falling = (before.messages - messages) / seconds if before is not None and before.present else 0.0
        self.depths[queue] = Depth(messages, consumers, True, falling)

    def missed(self, queue: str) -> None:
        """A watched queue is not there."""
        self.depths[queue] = Depth(present=False)


def _seconds(estimate: float) -> int:
    return max(1, math.ceil(min(estimate, LONGEST_RETRY_SECONDS)))
