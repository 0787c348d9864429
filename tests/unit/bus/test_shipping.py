"""Log lines leave in batches under the key of their level, and what does not leave is counted and said."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import structlog
from prometheus_client import CollectorRegistry

from shared import logs
from shared.bus import codec, topology
from shared.bus.codec import Frame
from shared.bus.ids import uuid7
from shared.bus.memory import MemoryBroker, MemoryLink
from shared.bus.shipping import MOST_LINES, Shipper
from shared.bus.topology import LOGS, Queue
from shared.bus.verdict import Ending
from shared.contracts.base import Principal
from shared.contracts.worker import StoreLogLines

OWN = Queue("mine", {}, ((LOGS, "ingest.error"),))
ANN = Principal(kind="user", id="ann")


@pytest.fixture
def broker() -> MemoryBroker:
    return MemoryBroker([*topology.service_queues("worker", logs=True), OWN])


@pytest.fixture
def link(broker: MemoryBroker) -> MemoryLink:
    return broker.link("ingest")


@pytest.fixture
def shipper(link: MemoryLink) -> Iterator[Shipper]:
    shipper = Shipper(link, "ingest")
    logs.on_ship(shipper.add)
    yield shipper
    logs.on_ship(None)


def line(level: str, event: str = "something", **more: Any) -> dict[str, Any]:
    return {
        "time": "2026-01-31T12:00:00.000123Z",
        "level": level,
        "service": "ingest",
        "event": event,
        **more,
    }


def command(kind: Any = "command") -> Frame:
    return Frame(id=uuid7(), topic="ingest.write_readings", kind=kind, principal=ANN, request_id="r1")


def shipped(broker: MemoryBroker, queue: str = "worker.logs") -> list[tuple[str, StoreLogLines]]:
    """What waits in a queue: routing keys and shipments."""
    found = []
    for message in broker.messages(queue):
        for frame in msgspec.msgpack.decode(message.body, type=list[Frame]):
            assert (frame.kind, frame.topic) == ("log", "worker.store_log_lines")
            found.append((message.key, msgspec.msgpack.decode(frame.body, type=StoreLogLines)))
    return found


def test_a_queue_bound_to_a_level_gets_the_lines_of_that_level_and_no_others(broker, shipper):
    for level in ("warning", "error", "warning"):
        shipper.add(line(level, request_id="r1", count=3))
    shipper.ended(command(), Ending.DONE)
    shipper.flush()
    assert [(key, len(each.lines), len(each.ended)) for key, each in shipped(broker)] == [
        ("ingest.warning", 2, 0),
        ("ingest.error", 1, 0),
        ("ingest.info", 0, 1),
    ]
    [(key, mine)] = shipped(broker, "mine")
    assert key == "ingest.error"
    assert (mine.lines[0].request_id, mine.lines[0].fields) == ("r1", {"count": 3})
    assert mine.lines[0].at.microsecond == 123


def test_every_command_leaves_a_line_and_of_queries_the_sample_that_is_set(broker, link):
    for sample, expected in ((0.0, 1), (1.0, 2)):
        shipper = Shipper(link, "ingest", query_sample=sample)
        for kind in ("command", "query", "log"):
            shipper.ended(command(kind), Ending.DONE)
        shipper.flush()
        assert len(shipped(broker)[-1][1].ended) == expected


def test_a_timer_is_heard_of_when_it_failed_only(broker, shipper):
    timer = Frame(
        id=uuid7(),
        topic="ingest.purge_datasets",
        kind="command",
        principal=Principal(kind="service", id="ingest"),
    )
    for ending in (Ending.DONE, Ending.FAILED, Ending.DONE):
        shipper.ended(timer, ending)
    shipper.flush()
    [(_, told)] = shipped(broker)
    assert [each.ending for each in told.ended] == ["failed"]


def test_what_is_too_much_is_counted_and_said_once_lines_go_through_again(broker, link):
    figures = CollectorRegistry()
    shipper = Shipper(link, "ingest", registry=figures)
    for _ in range(MOST_LINES + 7):
        shipper.add(line("warning"))
    with structlog.testing.capture_logs() as said:
        shipper.flush()
        shipper.flush()
    assert said == [{"event": "log_lines_dropped", "count": 7, "log_level": "warning"}]
    assert sum(len(each.lines) for _, each in shipped(broker)) == MOST_LINES
    assert figures.get_sample_value("posthouse_log_lines_dropped_total") == 7


def test_at_the_end_what_no_broker_takes_is_counted_and_said_at_home(link, shipper):
    link.up = False
    shipper.add(line("error"))
    shipper.ended(command(), Ending.DONE)
    with structlog.testing.capture_logs() as said:
        shipper.stop()
    assert [(each["event"], each["count"]) for each in said] == [("log_lines_dropped", 2)]
    assert shipper.dropped == 2


def test_a_line_that_cannot_be_encoded_takes_no_other_with_it(broker, shipper):
    shipper.add(line("error", number=2**70))
    shipper.add(line("warning"))
    with structlog.testing.capture_logs() as said:
        shipper.flush()
    assert [each["event"] for each in said] == ["log_lines_not_sent", "log_lines_dropped"]
    assert [key for key, _ in shipped(broker)] == ["ingest.warning"]


def test_a_long_field_is_cut_and_its_end_stays(broker, shipper):
    shipper.add(line("error", exception="x" * 100_000 + "the reason", rows=[{"name": "y" * 100_000}, 1]))
    shipper.flush()
    fields = shipped(broker)[0][1].lines[0].fields
    assert fields["exception"].endswith("the reason")
    assert max(len(value) for value in fields.values()) < 9_000


def test_lines_of_an_older_process_are_read_as_well(broker, link, shipper):
    """Until this version a message held lines of any level, under `<service>.lines`."""
    shipper.add(line("error"))
    shipper.flush()
    [old] = broker.messages("worker.logs")
    old.key = "ingest.lines"
    link.send(old)
    properties = codec.Properties(user_id="ingest")
    frames = [codec.decode_frames(each.body, each.key, properties) for each in broker.messages("worker.logs")]
    assert [frame.topic for some in frames for frame in some] == ["worker.store_log_lines"] * 2
