"""What the bus counts: frames by topic and ending, and how long handlers ran."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from shared.bus.verdict import Ending

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)


class Tally:
    """The figures of one topic: plain numbers, because only the event loop writes them."""

    __slots__ = ("buckets", "endings", "seconds")

    def __init__(self) -> None:
        self.endings: dict[Ending, int] = {}
        self.buckets = [0] * (len(SECONDS) + 1)
        self.seconds = 0.0

    def ended(self, ending: Ending) -> None:
        """Count one frame."""
        self.endings[ending] = self.endings.get(ending, 0) + 1

    def ran(self, seconds: float) -> None:
        """Count one run of the handler, of a frame or of a batch."""
        self.buckets[bisect_left(SECONDS, seconds)] += 1
        self.seconds += seconds

    def cumulated(self) -> list[tuple[str, float]]:
        """The histogram as Prometheus has it: each bucket holds all that are not longer."""
        until, found = 0, []
        for bound, number in zip((*map(str, SECONDS), "+Inf"), self.buckets, strict=True):
            until += number
            found.append((bound, float(until)))
        return found


class Meters(Collector):
    """The tallies of a service, made into metrics when somebody asks."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._tallies: dict[str, Tally] = {}
        self.repeats = 0
        registry.register(self)

    def of(self, topic: str) -> Tally:
        """The tally of a topic, always the same one."""
        return self._tallies.setdefault(topic, Tally())

    def collect(self) -> Iterator[Metric]:
        """The metrics, for prometheus_client."""
        frames = CounterMetricFamily(
            "posthouse_frames", "Frames ended, by topic and ending", labels=("topic", "ending")
        )
        seconds = HistogramMetricFamily(
            "posthouse_handler_seconds", "Seconds a handler ran, by topic", labels=("topic",)
        )
        for topic, tally in self._tallies.items():
            for ending, number in tally.endings.items():
                frames.add_metric((topic, ending.value), number)
            if any(tally.buckets):
                seconds.add_metric((topic,), tally.cumulated(), tally.seconds)
        yield frames
        yield seconds
        yield CounterMetricFamily(
            "posthouse_repeats", "Commands that came again and were answered as before", value=self.repeats
        )
