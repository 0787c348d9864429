"""The frames of AMQP: however the stream is cut nothing is lost, and what is written can be read."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest
from pamqp import commands, frame
from pamqp.body import ContentBody
from pamqp.header import ContentHeader
from pamqp.heartbeat import Heartbeat

from shared.bus.amqp import Publisher, Taker, Tap
from shared.bus.codec import JSON, Properties
from shared.bus.link import (
    Delivery,
    LinkDown,
    Nacked,
    Outgoing,
    PublishUnknown,
    Unroutable,
)

MOST = 100
HEARTBEAT = frame.marshal(Heartbeat(), 0)
HEADERS: dict[str, Any] = {"status": 200, "last": True, "error": "x" * 300}


class Socket(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []

    def write(self, data: Any) -> None:
        self.written.append(data)

    def is_closing(self) -> bool:
        return False

    def frames(self) -> list[tuple[int, Any]]:
        """Everything written so far, read by somebody else's reader."""
        return frames_of(b"".join(self.written))


def frames_of(data: bytes) -> list[tuple[int, Any]]:
    found = []
    while data:
        size, channel, value = frame.unmarshal(data)
        found.append((channel, value))
        data = data[size:]
    return found


class Reader(asyncio.StreamReader):
    """What the client library would have got."""

    def __init__(self) -> None:
        super().__init__()
        self.fed = b""

    def feed_data(self, data: Any) -> None:
        self.fed += data


class Broker:
    """A tap between a socket and a reader, one channel that publishes (1) and two that take (2 and 3)."""

    def __init__(self, seconds: float = 2.0) -> None:
        self.socket, self.reader = Socket(), Reader()
        self.tap = Tap(self.reader, asyncio.get_running_loop())
        self.tap.connection_made(self.socket)
        self.publisher = Publisher(self.tap, 1, "gateway", most=MOST, seconds=seconds)
        self.takers = {number: Taker(self.tap, number) for number in (2, 3)}
        self.taken: list[Delivery] = []
        self.heard: list[BaseException | None] = []
        for taker in self.takers.values():
            taker.consumers["tag"] = (self.taken.append, True)

    def says(self, channel: int, *values: Any) -> None:
        self.tap.data_received(b"".join(frame.marshal(value, channel) for value in values))

    def post(self, body: bytes = b"\x90", **more: Any) -> None:
        self.publisher.post(Outgoing("posthouse.commands", "a.b", body, **more), self.heard.append)

    def kinds(self) -> list[type[BaseException]]:
        return [type(error) for error in self.heard]


@pytest.fixture
async def broker() -> Broker:
    return Broker()


def message(number: int, body: bytes, **properties: Any) -> list[Any]:
    """A delivery as the broker sends it, its body in pieces."""
    return [
        commands.Basic.Deliver("tag", number, number % 2 == 0, "posthouse.commands", f"a.{number}"),
        ContentHeader(0, len(body), commands.Basic.Properties(**properties)),
        *(ContentBody(body[at : at + MOST]) for at in range(0, len(body), MOST)),
    ]


STRANGE = [
    commands.Channel.OpenOk(),
    commands.Basic.ConsumeOk("tag"),
    commands.Queue.DeclareOk("q", 1, 2),
    commands.Basic.CancelOk("tag"),
]


def traffic(chance: random.Random) -> tuple[bytes, bytes, list[tuple[int, bytes, str]]]:
    """A stream of interleaved channels, what of it is for the reader, and what is to be delivered."""
    channels: dict[int, list[Any]] = {2: [], 3: []}
    expected: list[tuple[int, bytes, str]] = []
    for number in range(1, 9):
        body = chance.randbytes(chance.choice((0, 1, MOST, MOST + 1, 3 * MOST)))
        channels[2 + number % 2] += [*message(number, body, message_id=f"id{number}"), chance.choice(STRANGE)]
        expected.append((number, body, f"id{number}"))
    others = [(0, Heartbeat()), (9, commands.Basic.CancelOk("other")), (9, ContentBody(b"not ours"))]
    sent, cold = b"", b""
    while any(channels.values()):
        channel = chance.choice([number for number, values in channels.items() if values])
        one = frame.marshal(value := channels[channel].pop(0), channel)
        cold += one if type(value) in map(type, STRANGE) else b""
        number, other = chance.choice(others)
        more = frame.marshal(other, number)
        sent, cold = sent + one + more, cold + more
    return sent, cold, expected


@pytest.mark.parametrize("seed", range(5))
async def test_wherever_the_stream_is_cut_the_same_arrives(seed: int) -> None:
    chance = random.Random(seed)
    sent, cold, expected = traffic(chance)
    cuts = [[at] for at in range(1, len(sent), 7)]
    cuts += [sorted(chance.sample(range(1, len(sent)), 20)) for _ in range(20)]
    cuts.append(list(range(1, len(sent))))
    for cut in cuts:
        broker = Broker()
        for begin, end in zip([0, *cut], [*cut, len(sent)], strict=True):
            broker.tap.data_received(sent[begin:end])
        # Heartbeats aside: on a slow machine the tap adds its own.
        assert broker.reader.fed.replace(HEARTBEAT, b"") == cold.replace(HEARTBEAT, b"")
        taken = [(int(one.routing_key[2:]), one.body, one.properties.message_id) for one in broker.taken]
        assert sorted(taken) == expected
        assert all(one.redelivered is (int(one.routing_key[2:]) % 2 == 0) for one in broker.taken)


async def test_every_property_with_a_meaning_is_read(broker: Broker) -> None:
    given = Properties(
        content_type=JSON,
        type="command",
        message_id="m",
        correlation_id="7",
        reply_to="somewhere",
        user_id="someone",
        headers=HEADERS,
    )
    named = {name: getattr(given, name) for name in given.__struct_fields__ if name != "type"}
    rest = {"priority": 5, "expiration": "100", "app_id": "app", "content_encoding": "none"}
    broker.says(2, *message(1, b"x", message_type=given.type, **named, **rest))
    broker.says(2, *message(2, b"x"))
    assert [one.properties for one in broker.taken] == [given, Properties()]


async def test_text_that_is_no_text_does_not_end_the_connection(broker: Broker) -> None:
    data = b"".join(frame.marshal(value, 2) for value in message(1, b"x", reply_to="ABCD", user_id="u"))
    broker.tap.data_received(data.replace(b"ABCD", b"\xff\xfe\x80\x81"))
    broker.tap.data_received(data.replace(b"a.1", b"\xff.1"))
    (bad_reply_to, bad_key) = broker.taken
    assert (bad_reply_to.body, bad_reply_to.routing_key, bad_reply_to.properties.user_id) == (b"x", "a.1", "")
    assert (bad_key.body, bad_key.number, bad_key.properties.user_id) == (b"x", 1, "u")


async def test_a_delivery_nobody_can_take_does_not_stop_the_next(broker: Broker) -> None:
    def fails(_: Delivery) -> None:
        raise ValueError

    broker.takers[2].consumers["tag"] = (fails, True)
    broker.says(2, *message(1, b"x"))
    broker.says(3, *message(2, b"y"))
    assert [one.body for one in broker.taken] == [b"y"]


async def next_turn() -> None:
    """After what was due at once."""
    for _ in range(2):
        await asyncio.sleep(0)


def settlings(broker: Broker) -> list[tuple[str, int, bool]]:
    return [(value.name, value.delivery_tag, value.multiple) for _, value in broker.socket.frames()]


async def test_one_frame_settles_all_that_ended_in_a_turn_but_none_that_did_not(broker: Broker) -> None:
    broker.says(2, *(value for number in range(1, 8) for value in message(number, b"x")))
    first, second, third, fourth, fifth, _, seventh = broker.taken
    for one in (seventh, second, first, fifth):
        one.ack()
        one.ack()
    third.requeue()
    await next_turn()
    assert len(broker.socket.written) == 2
    assert settlings(broker) == [
        ("Basic.Nack", 3, False),
        ("Basic.Ack", 2, True),
        ("Basic.Ack", 7, False),
        ("Basic.Ack", 5, False),
    ]
    fourth.ack()
    await next_turn()
    assert settlings(broker)[4:] == [("Basic.Ack", 4, True)]


async def test_after_the_end_of_a_channel_nothing_is_settled_and_its_number_is_free(broker: Broker) -> None:
    broker.says(2, *message(1, b"x"), *message(2, b"y"))
    broker.taken[0].ack()
    broker.says(2, commands.Channel.Close(404, "NOT_FOUND", 60, 20))
    broker.taken[1].ack()
    await next_turn()
    assert broker.socket.written == []
    broker.says(2, *message(1, b"z"))
    assert len(broker.taken) == 2


async def test_a_queue_that_is_gone_leaves_nothing_unsettled(broker: Broker) -> None:
    broker.says(2, *message(1, b"x"), *message(2, b"y"))
    broker.takers[2].forget("tag")
    await next_turn()
    assert settlings(broker) == [("Basic.Ack", 2, True)]


async def test_what_is_published_can_be_read(broker: Broker) -> None:
    body = bytes(range(250))
    more = {"headers": HEADERS, "correlation_id": "7", "type": "event", "reply_to": "x", "content_type": JSON}
    broker.post(body, expiration_ms=900, persistent=False, mandatory=False, **more)
    ((_, method), (_, header), *bodies) = broker.socket.frames()
    assert len(broker.socket.written) == 1
    assert (method.exchange, method.routing_key, method.mandatory) == ("posthouse.commands", "a.b", False)
    assert b"".join(piece.value for _, piece in bodies) == body
    assert [len(piece.value) for _, piece in bodies] == [MOST, MOST, 50]
    properties = header.properties
    assert (header.body_size, properties.headers, properties.expiration) == (250, HEADERS, "900")
    assert (properties.correlation_id, properties.message_type, properties.reply_to) == ("7", "event", "x")
    assert (properties.delivery_mode, properties.user_id, properties.content_type) == (1, "gateway", JSON)


async def test_no_body_is_no_frame(broker: Broker) -> None:
    for _ in range(3):
        broker.post(b"")
    frames = [value for _, value in broker.socket.frames()]
    assert len(frames) == 6
    assert all(value.properties.delivery_mode == 2 for value in frames[1::2])


async def test_confirms_come_alone_and_together(broker: Broker) -> None:
    for number in range(6):
        broker.publisher.post(
            Outgoing("e", "k", b""), lambda error, number=number: broker.heard.append((number, error))
        )
    broker.says(1, commands.Basic.Ack(2))
    broker.says(1, commands.Basic.Ack(4, True))
    broker.says(1, commands.Basic.Nack(6))
    numbers = [number for number, _ in broker.heard]
    assert numbers == [1, 0, 2, 3, 5]
    assert [type(error) for _, error in broker.heard] == [type(None)] * 4 + [Nacked]


async def test_what_comes_back_is_unroutable_and_its_confirm_is_no_second_answer(broker: Broker) -> None:
    broker.post(b"x")
    broker.post(b"y")
    _, (_, header), _ = broker.socket.frames()[:3]
    returned = commands.Basic.Return(312, "NO_ROUTE", "posthouse.commands", "a.b")
    broker.says(1, returned, header, ContentBody(b"x"))
    assert broker.kinds() == [Unroutable]
    broker.says(1, commands.Basic.Ack(2, True))
    assert broker.kinds() == [Unroutable, type(None)]


async def test_while_the_socket_takes_no_more_messages_wait_here(broker: Broker) -> None:
    broker.tap.pause_writing()
    broker.post(b"x")
    assert broker.socket.written == []
    assert not broker.publisher.send(Outgoing("e", "k", b""))
    broker.tap.resume_writing()
    assert len(broker.socket.written) == 1
    broker.says(1, commands.Basic.Ack(1))
    assert broker.heard == [None]


async def test_of_a_lost_connection_what_was_sent_is_unknown_and_what_waited_never_left(
    broker: Broker,
) -> None:
    broker.post(b"x")
    broker.tap.pause_writing()
    broker.post(b"y")
    broker.tap.connection_lost(ConnectionResetError())
    broker.post(b"z")
    assert broker.kinds() == [PublishUnknown, LinkDown]
    await asyncio.sleep(0)
    assert broker.kinds() == [PublishUnknown, LinkDown, LinkDown]


async def test_once_the_broker_has_closed_the_channel_nothing_more_is_sent(broker: Broker) -> None:
    broker.post(b"x")
    broker.says(1, commands.Channel.Close(404, "NOT_FOUND", 60, 40))
    broker.post(b"y")
    assert len(broker.socket.written) == 1
    assert frames_of(broker.reader.fed)[0][1].name == "Channel.Close"
    await asyncio.sleep(0)
    assert broker.kinds() == [PublishUnknown, LinkDown]


async def test_who_gets_no_confirm_in_time_is_told_once(broker: Broker) -> None:
    broker.post(b"x")
    broker.publisher.expire()
    assert broker.kinds() == []
    broker = Broker(seconds=0)
    broker.post(b"x")
    broker.tap.pause_writing()
    broker.post(b"y")
    broker.publisher.expire()
    broker.publisher.expire()
    broker.says(1, commands.Basic.Ack(1))
    broker.tap.resume_writing()
    assert broker.kinds() == [PublishUnknown, PublishUnknown]
    assert len(broker.socket.written) == 1


async def test_a_message_that_cannot_be_written_is_said_and_costs_no_number(broker: Broker) -> None:
    for key in ("k" * 256, "fine"):
        broker.publisher.post(Outgoing("e", key, b""), broker.heard.append)
    await asyncio.sleep(0)
    assert broker.kinds() == [TypeError]
    broker.says(1, commands.Basic.Ack(1))
    assert broker.kinds() == [TypeError, type(None)]


async def test_one_that_fails_to_hear_does_not_keep_it_from_the_others(broker: Broker) -> None:
    def fails(_: BaseException | None) -> None:
        raise ValueError

    broker.publisher.post(Outgoing("e", "k", b""), fails)
    broker.post()
    broker.says(1, commands.Basic.Ack(2, True))
    assert broker.heard == [None]


async def test_frames_taken_here_are_a_sign_of_life(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    broker.says(2, *message(1, b"x"))
    assert broker.reader.fed == b""
    now: Callable[[], float] = broker.tap.loop.time
    monkeypatch.setattr(broker.tap.loop, "time", lambda: now() + 5)
    broker.says(2, *message(2, b"x"))
    broker.says(2, *message(3, b"x"))
    assert [value.name for _, value in frames_of(broker.reader.fed)] == ["Heartbeat"]
