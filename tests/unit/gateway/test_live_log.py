"""The log is followed as it is said: by pattern, by administrators, and at nobody's expense."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp
import msgspec
import pytest

from services.gateway.live.tail import MOST_MESSAGES, PREFETCH, LogTail, Pattern
from shared.bus import topology
from shared.bus.codec import Frame
from shared.bus.ids import uuid7
from shared.bus.memory import MemoryBroker, MemoryLink
from shared.bus.shipping import Shipper
from shared.bus.verdict import Ending
from shared.contracts.base import Principal
from shared.contracts.worker import ListLogLines
from tests.unit.gateway.door import House, open_house

TRACE = "0af7651916cd43dd8448eb211c80319c"
AT = "2026-01-31T12:00:00.000000Z"


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.gateway.live.events.LOOK_SECONDS", 0.05)


@pytest.fixture
def broker() -> MemoryBroker:
    return MemoryBroker(topology.service_queues("worker", logs=True))


@pytest.fixture
def link(broker: MemoryBroker) -> MemoryLink:
    return broker.link("gateway")


@pytest.fixture
def tail(house: House, link: MemoryLink) -> LogTail:
    house.gateway.tail = LogTail(link, most=2, beat_seconds=0.5)
    return house.gateway.tail


def say(broker: MemoryBroker, service: str, *lines: tuple[str, str], **more: Any) -> None:
    """Ship lines as a process of this service does."""
    shipper = Shipper(broker.link(service), service)
    for level, event in lines:
        shipper.add({"time": AT, "level": level, "event": event, **more})
    shipper.flush()


@dataclass
class Stream:
    """What arrives: events as (name, data), and how often there was nothing to say."""

    response: aiohttp.ClientResponse
    said: list[tuple[str, Any]] = field(default_factory=list)
    beats: int = 0
    is_over: bool = False

    async def read(self) -> None:
        name = ""
        async for line in self.response.content:
            if line.startswith(b"event: "):
                name = line[7:].decode().strip()
            elif line.startswith(b"data: "):
                self.said.append((name, msgspec.json.decode(line[6:])))
                name = ""
            self.beats += line == b":\n"
        self.is_over = True

    async def until(self, is_so: Any) -> None:
        async with asyncio.timeout(10):
            while not is_so():  # noqa: ASYNC110 (a stream sets no event)
                await asyncio.sleep(0.01)


@asynccontextmanager
async def followed(house: House, token: str, query: str = "", listeners: int = 1) -> AsyncIterator[Stream]:
    """Somebody who follows, once they do."""
    headers = {"Authorization": f"Bearer {token}"}
    tail = house.gateway.tail
    assert tail is not None
    async with (
        aiohttp.ClientSession(house.url) as session,
        session.get(f"/v1/logs/live?{query}", headers=headers) as response,
    ):
        assert (response.status, response.headers["Content-Type"]) == (200, "text/event-stream")
        stream = Stream(response)
        await stream.until(lambda: tail._listeners == listeners)
        reading = asyncio.create_task(stream.read())
        yield stream
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


async def test_a_line_arrives_as_the_log_will_show_it(house, token, tail, broker):
    async with followed(house, token) as stream:
        say(broker, "ingest", ("error", "lost"), request_id="r1", trace_id=TRACE, count=3)
        await stream.until(lambda: stream.said)
    assert stream.said == [
        (
            "",
            {
                "at": AT,
                "level": "error",
                "service": "ingest",
                "event": "lost",
                "request_id": "r1",
                "trace_id": TRACE,
                "fields": {"count": 3},
            },
        )
    ]


async def test_every_command_is_a_line_and_its_sender_is_who_the_broker_says(house, token, tail, broker):
    async with followed(house, token, "service=ingest") as stream:
        frame = Frame(
            id=uuid7(), topic="ingest.x", kind="command", principal=Principal(kind="user", id="ann")
        )
        shipper = Shipper(broker.link("ingest"), "ingest")
        shipper.ended(frame, Ending.DONE)
        shipper.flush()
        say(broker, "ingest", ("error", "not by me"))
        broker.publish(broker.messages("worker.logs")[-1], "auth")
        await stream.until(lambda: len(stream.said) == 3)
    told, own, other = (line for _, line in stream.said)
    assert (told["event"], told["service"], told["level"]) == ("command_ended", "ingest", "info")
    assert told["fields"]["caller"] == "user:ann"
    assert (own["service"], other["service"]) == ("ingest", "auth")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ["a1", "a2", "i1", "i2"]),
        ("service=ingest", ["i1", "i2"]),
        ("level=error", ["a2", "i2"]),
        ("service=auth&level=warning", ["a1", "a2"]),
        ("q=I2", ["i2"]),
        ("q=%3A+%22Porch", ["a1", "a2", "i1", "i2"]),
        ("q=nothing+of+it", []),
    ],
)
async def test_a_pattern_chooses_the_lines(house, token, tail, broker, query, expected):
    async with followed(house, token, query) as stream:
        say(broker, "auth", ("warning", "a1"), ("error", "a2"), place="porch")
        say(broker, "ingest", ("warning", "i1"), ("critical", "i2"), place="porch")
        await stream.until(lambda: len(stream.said) >= len(expected))
        await stream.until(lambda: stream.beats)
    assert sorted(line["event"] for _, line in stream.said) == expected


async def test_lines_of_an_older_process_are_followed_too(house, token, tail, broker):
    """Until this version a message held lines of all levels, under `<service>.lines`."""
    async with followed(house, token, "level=error") as stream:
        say(broker, "ingest", ("warning", "w"))
        [old] = broker.messages("worker.logs")
        say(broker, "ingest", ("error", "e"))
        broker.publish(replace(old, key="ingest.lines"), "ingest")
        say(broker, "ingest", ("error", "f"))
        await stream.until(lambda: len(stream.said) == 2)
    assert [line["event"] for _, line in stream.said] == ["e", "f"]


async def test_the_stored_log_is_asked_for_what_the_address_says(house, token):
    answer = await house.request(
        "GET",
        f"/v1/logs?service=ingest&level=warning&trace_id={TRACE}&q=a%25b&since=2026-01-01T01:00:00%2B01:00&limit=5",
        token=token,
    )
    assert answer.json["items"][0]["at"] == "2026-01-31T12:00:00.000000Z"
    asked, caller = house.services.last(ListLogLines)
    assert (asked.service, asked.level, asked.trace_id, asked.q) == ("ingest", "warning", TRACE, "a%b")
    assert (asked.since.isoformat(), asked.limit) == ("2026-01-01T00:00:00+00:00", 5)
    assert caller.principal.roles == ("administrator",)
    answer = await house.request(
        "GET", "/v1/logs?level=loud&limit=0&since=now&trace_id=x&text=y", token=token
    )
    assert answer.status == 422
    mistakes = {error["path"] for error in answer.json["errors"]}
    assert mistakes == {"level", "limit", "since", "trace_id", "text"}
    assert (await house.request("GET", "/v1/logs")).status == 401


async def test_only_administrators_follow_and_mistakes_are_told(house, tail):
    ask = house.request
    assert (await ask("GET", "/v1/logs/live")).status == 401
    for roles in ([], ["other"]):
        answer = await ask("GET", "/v1/logs/live", token=house.services.token(roles=roles))
        assert (answer.status, answer.json["code"]) == (403, "forbidden")
    token = house.services.token()
    answer = await ask("GET", "/v1/logs/live?level=loud&service=%23&x=1", token=token)
    assert answer.status == 422
    assert {error["path"] for error in answer.json["errors"]} == {"level", "service", "x"}
    house.gateway.tail = None
    assert (await ask("GET", "/v1/logs/live", token=token)).status == 503


async def test_a_gateway_has_only_so_many_places(house, token, tail):
    async with followed(house, token), followed(house, token, listeners=2):
        answer = await house.request("GET", "/v1/logs/live", token=token)
        assert (answer.status, answer.headers["Retry-After"]) == (429, "10")


async def test_whoever_goes_leaves_their_place(house, token, tail, broker):
    queues = len(broker.queues)
    async with followed(house, token) as stream:
        assert len(broker.queues) == queues + 1
    await stream.until(lambda: not tail._listeners)
    assert len(broker.queues) == queues


async def test_the_end_of_the_session_is_the_end_of_the_stream(house, token, tail):
    async with followed(house, token) as stream:
        house.gateway.callers.drop_sessions(["s1"])
        await stream.until(lambda: stream.is_over)
    assert stream.said == [("end", {})]


async def test_the_end_of_the_gateway_is_the_end_of_the_stream(vault, link):
    async with open_house(vault) as house:
        house.gateway.tail = LogTail(link)
        async with followed(house, house.services.token()) as stream:
            async with asyncio.timeout(5):
                await house.door.stop()
            await stream.until(lambda: stream.is_over)
    assert stream.said == [("end", {})]


async def test_after_the_broker_was_away_lines_go_on_and_the_gap_is_told(house, token, tail, broker, link):
    async with followed(house, token) as stream:
        link.cut()
        await stream.until(lambda: ("lost", {}) in stream.said)
        await link.mend()
        await stream.until(lambda: any(".logs-" in name for name in broker.queues))
        say(broker, "ingest", ("error", "here again"))
        await stream.until(lambda: stream.said[-1][0] == "")
    assert {name for name, _ in stream.said[:-1]} == {"lost"}


async def test_who_does_not_read_stops_nothing_and_hears_the_newest(broker, tail):
    async with tail.follow(Pattern()) as slow:
        for number in range(500):
            say(broker, "ingest", ("error", f"{number}"))
        assert len(broker.messages("worker.logs")) == 500
        [own] = [name for name in broker.queues if ".logs-" in name]
        assert len(broker.messages(own)) == MOST_MESSAGES
        heard = [await slow.next() for _ in range(PREFETCH + MOST_MESSAGES)]
        assert [line.event for lines in heard for line in lines][-1] == "499"


async def test_more_lines_at_once_than_anybody_reads_are_counted_instead(
    house, token, tail, broker, monkeypatch
):
    monkeypatch.setattr("services.gateway.live.events.MOST_LINES", 3)
    async with followed(house, token) as stream:
        say(broker, "ingest", *[("error", f"{number}") for number in range(10)])
        await stream.until(lambda: len(stream.said) == 4)
    assert stream.said[-1] == ("skipped", {"lines": 7})


async def test_a_message_nobody_can_read_or_nobody_stands_for_is_passed_over(house, token, tail, broker):
    async with followed(house, token) as stream:
        say(broker, "", ("error", "whose"))
        say(broker, "ingest", ("error", "first"))
        old = broker.messages("worker.logs")[-1]
        broker.publish(replace(old, body=b"\xc1"), "ingest")
        say(broker, "ingest", ("error", "second"))
        await stream.until(lambda: len(stream.said) == 2)
    assert [line["event"] for _, line in stream.said] == ["first", "second"]
