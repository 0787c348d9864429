"""The figures of the bus as Prometheus reads them."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from shared.bus.meters import Meters
from shared.bus.verdict import Ending


def test_frames_and_seconds_are_told_by_topic() -> None:
    registry = CollectorRegistry()
    meters = Meters(registry)
    tally = meters.of("a.b")
    for ending in (Ending.DONE, Ending.DONE, Ending.REFUSED):
        tally.ended(ending)
    for seconds in (0.001, 0.02, 20.0):
        tally.ran(seconds)
    meters.of("a.c").ended(Ending.FAILED)
    meters.repeats += 1
    lines = generate_latest(registry).decode().splitlines()
    for line in (
        'posthouse_frames_total{ending="done",topic="a.b"} 2.0',
        'posthouse_frames_total{ending="refused",topic="a.b"} 1.0',
        'posthouse_frames_total{ending="failed",topic="a.c"} 1.0',
        'posthouse_handler_seconds_bucket{le="0.005",topic="a.b"} 1.0',
        'posthouse_handler_seconds_bucket{le="0.025",topic="a.b"} 2.0',
        'posthouse_handler_seconds_bucket{le="+Inf",topic="a.b"} 3.0',
        'posthouse_handler_seconds_count{topic="a.b"} 3.0',
        'posthouse_handler_seconds_sum{topic="a.b"} 20.021',
        "posthouse_repeats_total 1.0",
    ):
        assert line in lines
    assert not any("handler" in line and "a.c" in line for line in lines)
