"""Coalescing: a lone frame leaves at once, two publishes are in flight, what waits leaves together."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from shared.bus.codec import MOST_BYTES, MOST_FRAMES
from shared.bus.lanes import IN_FLIGHT, Lane, Lanes
from shared.bus.link import Nacked, Outgoing, Settled

LANE = Lane("posthouse.commands", "a.b")


class SlowLink:
    """Confirms when the test says so."""

    def __init__(self) -> None:
        self.sent: list[Outgoing] = []
        self.confirms: list[Settled] = []

    def post(self, message: Outgoing, settled: Settled) -> None:
        self.sent.append(message)
        self.confirms.append(settled)

    def sizes(self) -> list[int]:
        return [len(msgspec.msgpack.decode(message.body)) for message in self.sent]


@pytest.fixture
def link() -> SlowLink:
    return SlowLink()


@pytest.fixture
def lanes(link: SlowLink) -> Lanes:
    return Lanes(link)  # type: ignore[arg-type]


async def turns(count: int = 4) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def ignore(_: BaseException | None) -> None: ...


async def test_a_lone_frame_leaves_on_the_next_turn_of_the_loop(link: SlowLink, lanes: Lanes) -> None:
    lanes.send(LANE, b"\x80", ignore)
    await turns(2)
    assert link.sizes() == [1]


async def test_two_are_in_flight_and_the_rest_leaves_together_with_a_confirm(
    link: SlowLink, lanes: Lanes
) -> None:
    for _ in range(3):
        lanes.send(LANE, b"\x80", ignore)
        await turns()
    for _ in range(10):
        lanes.send(LANE, b"\x80", ignore)
    await turns()
    assert link.sizes() == [1] * IN_FLIGHT
    link.confirms[0](None)
    await turns()
    assert link.sizes() == [1, 1, 11]


async def test_a_message_has_at_most_so_many_frames_and_bytes(link: SlowLink, lanes: Lanes) -> None:
    for _ in range(MOST_FRAMES + 1):
        lanes.send(LANE, b"\x80", ignore)
    await turns()
    assert link.sizes() == [MOST_FRAMES, 1]
    large = Lane("posthouse.commands", "a.large")
    frame = msgspec.msgpack.encode(b"x" * (MOST_BYTES // 2))
    for _ in range(3):
        lanes.send(large, frame, ignore)
    await turns()
    assert link.sizes()[2:] == [1, 1]
    assert all(len(message.body) <= MOST_BYTES + 8 for message in link.sent)


async def test_a_frame_larger_than_a_message_travels_alone(link: SlowLink, lanes: Lanes) -> None:
    lanes.send(LANE, msgspec.msgpack.encode(b"x" * (MOST_BYTES + 1)), ignore)
    await turns()
    assert link.sizes() == [1]


async def test_other_topics_and_other_reply_queues_do_not_wait_for_each_other(
    link: SlowLink, lanes: Lanes
) -> None:
    for lane in (LANE, Lane("posthouse.commands", "a.c"), Lane("posthouse.commands", "a.b", "gateway.x")):
        lanes.send(lane, b"\x80", ignore)
    await turns()
    assert len(link.sent) == 3


async def test_every_frame_hears_once_how_its_message_ended(link: SlowLink, lanes: Lanes) -> None:
    heard: list[BaseException | None] = []
    for _ in range(2):
        lanes.send(LANE, b"\x80", heard.append)
    await turns()
    link.confirms[0](Nacked("full"))
    await lanes.idle()
    assert [type(error) for error in heard] == [Nacked, Nacked]


async def test_idle_ends_when_the_last_frame_has_been_told(link: SlowLink, lanes: Lanes) -> None:
    for _ in range(2):
        lanes.send(LANE, b"\x80", ignore)
        await turns()
    idle = asyncio.create_task(lanes.idle())
    await turns()
    link.confirms[0](None)
    await turns()
    assert not idle.done()
    lanes.send(LANE, b"\x80", ignore)
    link.confirms[1](None)
    await turns()
    assert not idle.done()
    link.confirms[2](None)
    await asyncio.wait_for(idle, 1)


async def test_a_query_expires_with_the_longest_wait_of_its_frames(link: SlowLink, lanes: Lanes) -> None:
    queries = Lane("posthouse.queries", "a.ask", "gateway.x", False, True)
    for remaining_ms in (100, 900, 300):
        lanes.send(queries, b"\x80", ignore, remaining_ms=remaining_ms)
    lanes.send(LANE, b"\x80", ignore, remaining_ms=900)
    await turns()
    assert [(message.expiration_ms, message.persistent) for message in link.sent] == [(900, False), (0, True)]
