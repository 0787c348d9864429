"""What the gateway counts: requests by route, method and status, how long they took, how calls ended."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import datetime

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Meter(Collector):
    """Plain numbers, made into metrics when somebody asks: one loop writes them, so they need no locks."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.in_flight = 0
        self.limits_alone: Callable[[], bool] = _never
        self.certificate_ends: Callable[[], datetime | None] = _no_time
        self._requests: dict[tuple[str, str, int], int] = defaultdict(int)
        self._seconds: dict[tuple[str, str], _Timed] = defaultdict(_Timed)
        self._calls: dict[tuple[str, str], int] = defaultdict(int)
        registry.register(self)

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one answered request; status 499 when the client had gone."""
        self._requests[route, method, status] += 1
        timed = self._seconds[route, method]
        timed.buckets[bisect_left(SECONDS, seconds)] += 1
        timed.total += seconds

    def call(self, topic: str, outcome: str) -> None:
        """Count one call: ok, accepted, refused, gone, failed, or the code of its failure."""
        self._calls[topic, outcome] += 1

    def collect(self) -> Iterator[Metric]:
        """The metrics, for prometheus_client."""
        yield GaugeMetricFamily("posthouse_http_in_flight", "Requests being worked on.", value=self.in_flight)
        requests = CounterMetricFamily(
            "posthouse_http_requests", "Requests answered.", labels=("route", "method", "status")
        )
        for (route, method, status), number in list(self._requests.items()):
            requests.add_metric((route, method, str(status)), number)
        yield requests
        seconds = HistogramMetricFamily(
            "posthouse_http_seconds",
            "From the complete header of a request to its answer.",
            labels=("route", "method"),
        )
        for labels, timed in list(self._seconds.items()):
            seconds.add_metric(labels, timed.cumulated(), timed.total)
        yield seconds
        calls = CounterMetricFamily(
            "posthouse_gateway_calls", "Calls to services.", labels=("topic", "outcome")
        )
        for names, number in list(self._calls.items()):
            calls.add_metric(names, number)
        yield calls
        yield GaugeMetricFamily(
            "posthouse_limits_alone",
            "1 while Redis is away and each process counts callers for itself.",
            value=self.limits_alone(),
        )
        ends = GaugeMetricFamily(
            "posthouse_certificate_ends_timestamp_seconds", "Until when the certificate in use is good."
        )
        if until := self.certificate_ends():
            ends.add_metric((), until.timestamp())
        yield ends


def _never() -> bool:
    return False


def _no_time() -> None:
    return None


class _Timed:
    """One histogram: how many fell into each bucket, and the sum."""

    __slots__ = ("buckets", "total")

    def __init__(self) -> None:
        self.buckets = [0] * (len(SECONDS) + 1)
        self.total = 0.0

    def cumulated(self) -> list[tuple[str, float]]:
        """Prometheus's form: each bucket holds all that are not longer."""
        until, found = 0, []
        for bound, number in zip((*map(str, SECONDS), "+Inf"), self.buckets, strict=True):
            until += number
            found.append((bound, float(until)))
        return found
