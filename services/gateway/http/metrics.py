"""What the gateway counts: requests by route, method and status, how long they took, how calls ended."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Meter:
    """Counters whose children are found by one dictionary look-up."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.in_flight = 0
        self._requests = Counter(
            "posthouse_http_requests",
            "Requests answered.",
            ("route", "method", "status"),
            registry=registry,
        )
        self._seconds = Histogram(
            "posthouse_http_seconds",
            "From the complete header of a request to its answer.",
            ("route", "method"),
            buckets=SECONDS,
            registry=registry,
        )
        self._calls = Counter(
            "posthouse_gateway_calls", "Calls to services.", ("topic", "outcome"), registry=registry
        )
        running = Gauge("posthouse_http_in_flight", "Requests being worked on.", registry=registry)
        running.set_function(lambda: self.in_flight)
        self._known: dict[tuple[str, str, int], Counter] = {}
        self._timed: dict[tuple[str, str], Histogram] = {}
        self._ended: dict[tuple[str, str], Counter] = {}

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one answered request; status 499 when the client had gone."""
        key = (route, method, status)
        counter = self._known.get(key)
        if counter is None:
            counter = self._known[key] = self._requests.labels(route, method, str(status))
        counter.inc()
        timed = self._timed.get((route, method))
        if timed is None:
            timed = self._timed[route, method] = self._seconds.labels(route, method)
        timed.observe(seconds)

    def call(self, topic: str, outcome: str) -> None:
        """Count one call: ok, refused, unavailable, outcome_unknown, internal."""
        counter = self._ended.get((topic, outcome))
        if counter is None:
            counter = self._ended[topic, outcome] = self._calls.labels(topic, outcome)
        counter.inc()
