"""Every row of the table "How a message ends", and what surrounds it, on both brokers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from uuid import UUID

import msgspec
import pytest

from shared.bus import codec
from shared.bus.codec import Frame
from shared.bus.ids import keyed_id, uuid7
from shared.bus.link import Outgoing
from shared.bus.pressure import Depth
from shared.bus.requests import NoSuchTopic, OutcomeUnknown, ServiceFailed, Unavailable
from shared.bus.streaming import MADE_AT_ONCE
from shared.bus.topology import COMMANDS, EVENTS, MOST_MESSAGES, QUERIES
from shared.contracts.about import get_about, probe
from shared.contracts.base import Message, Principal
from shared.contracts.submissions import get_submission
from shared.errors import Conflict, Refusal, TooMany
from tests.suites.probe import Add, AddMany, AddOne, Ask, Internal, Shouted, Stranger, Stream, make_routes
from tests.suites.worlds import ANN, World, caller, eventually, memory_world, real_world

KINDS = ["memory", "memory-request", "rabbit", "rabbit-request"]


@pytest.fixture(params=KINDS)
def where(request: pytest.FixtureRequest) -> AbstractAsyncContextManager[World]:
    """Which broker; the servers are only asked for where they are used."""
    request_queues = request.param.endswith("request")
    if request.param.startswith("memory"):
        return memory_world(request_queues=request_queues)
    names = ("database", "amqp_url", "management_url")
    place, *urls = (request.getfixturevalue(name) for name in names)
    return real_world(place, *urls, request_queues=request_queues)


@pytest.fixture
async def world(where: AbstractAsyncContextManager[World]) -> AsyncIterator[World]:
    """The same world four times."""
    async with where as made:
        await made.open(make_routes())
        yield made


def frame_of(message: Message, principal: Principal = ANN) -> Frame:
    """A frame as the gateway would make it, without anybody waiting."""
    made = uuid7()
    return Frame(
        id=made,
        topic=message.topic,
        kind="command",
        body=codec.body_of(message),
        principal=principal,
        born=made.int >> 80,
    )


def outgoing(*frames: Frame, key: str = "") -> Outgoing:
    return Outgoing(COMMANDS, key or frames[0].topic, codec.join([codec.encode(each) for each in frames]))


Kind = type[Add] | type[AddOne] | type[AddMany]


def refusing(*kinds: Kind) -> list[Add | AddOne | AddMany]:
    return [kind(text="a", how="refuse") for kind in kinds]


def replace_id(frame: Frame, made: UUID) -> Frame:
    return msgspec.structs.replace(frame, id=made)


async def idle(world: World) -> bool:
    counts = [service.counts() for service, _ in world.services]
    return await world.waiting("probe") == 0 and not any(sum(each.values()) for each in counts)


async def holding(world: World) -> bool:
    return world.services[0][0].holding


# -- returns Done --------------------------------------------------------------------------------------


async def test_done_is_committed_replied_announced_and_acked(world: World) -> None:
    reply = await world.requester.ask(Add(text="a"), caller())
    assert reply.count == 1
    assert await world.effects.all() == ["a"]
    heard = await asyncio.wait_for(world.heard.get(), 5)
    assert heard.routing_key == "probe.text_added"
    assert await world.waiting("probe") == 0


async def test_the_same_frame_again_changes_nothing_and_answers_the_same(world: World) -> None:
    for command in (Add, AddOne):
        frame = uuid7()
        key = keyed_id(ANN, command.topic, "k1")
        for given in (frame, key):
            first = await world.requester.ask(command(text=str(given)), caller(frame=given))
            again = await world.requester.ask(command(text=str(given)), caller(frame=given))
            assert first == again
    assert len(await world.effects.all()) == 4


async def test_a_repeat_announces_the_same_events_under_the_same_ids(world: World) -> None:
    key = keyed_id(ANN, "probe.add", "k1")
    ids = []
    for _ in range(2):
        await world.requester.ask(Add(text="a"), caller(frame=key))
        delivery = await asyncio.wait_for(world.heard.get(), 5)
        ids.append(codec.decode_frames(delivery.body, "", delivery.properties)[0].id)
    assert ids[0] == ids[1]


async def test_the_same_key_with_another_body_is_refused(world: World) -> None:
    key = keyed_id(ANN, "probe.add", "k1")
    await world.requester.ask(Add(text="a"), caller(frame=key))
    with pytest.raises(Refusal) as refused:
        await world.requester.ask(Add(text="b"), caller(frame=key))
    assert (refused.value.status, refused.value.code) == (422, "key_reused")
    assert await world.effects.all() == ["a"]


async def test_fifty_copies_of_one_key_have_one_effect_and_equal_answers(world: World) -> None:
    key = keyed_id(ANN, "probe.add", "k1")
    replies = await asyncio.gather(
        *(world.requester.ask(Add(text="a"), caller(frame=key)) for _ in range(50))
    )
    assert len({reply.count for reply in replies}) == 1
    assert await world.effects.all() == ["a"]


async def test_copies_of_one_statement_in_three_processes_have_one_effect(world: World) -> None:
    for _ in range(2):
        await world.serve(make_routes())
    message, frame = AddOne(text="a"), uuid7()
    copies = [replace_id(frame_of(message), frame) for _ in range(30)]
    asked = asyncio.gather(*(world.requester.ask(message, caller(frame=frame)) for _ in range(10)))
    for copy in copies:
        await world.publish(outgoing(copy), "gateway")
    assert len({reply.count for reply in await asked}) == 1
    await eventually(lambda: idle(world))
    assert await world.effects.all() == ["a"]


async def test_a_key_that_another_process_works_on_is_a_conflict(world: World) -> None:
    key = keyed_id(ANN, "probe.add", "k1")
    async with world.inbox.unit() as unit:
        assert await unit.lock([key]) == {key}
        with pytest.raises(Refusal) as refused:
            await world.requester.ask(Add(text="a"), caller(frame=key))
    assert refused.value.status == 409
    assert await world.effects.all() == []


# -- raises a Refusal ----------------------------------------------------------------------------------


async def test_a_refusal_has_no_effect_and_is_the_same_on_a_second_delivery(world: World) -> None:
    refused = [(each, keyed_id(ANN, each.topic, "k1")) for each in refusing(Add, AddOne, AddMany)]
    refused += [(each, uuid7()) for each in refusing(Add, AddOne)]
    for message, key in refused:
        world.script.refuse = True
        with pytest.raises(Refusal) as first:
            await world.requester.ask(message, caller(frame=key))
        world.script.refuse = False
        with pytest.raises(Refusal) as second:
            await world.requester.ask(message, caller(frame=key))
        assert (first.value.status, first.value.code) == (second.value.status, second.value.code)
        assert second.value.code == Conflict("", code="not_now").code
    assert await world.effects.all() == []


async def test_a_refusal_that_is_returned_keeps_its_effects_and_events(world: World) -> None:
    for message in (Add(text="a", how="refuse and keep"), AddMany(text="b", how="refuse and keep")):
        frame = keyed_id(ANN, message.topic, "k1")
        ids = set()
        for _ in range(2):
            with pytest.raises(Refusal) as refused:
                await world.requester.ask(message, caller(frame=frame))
            assert (refused.value.status, refused.value.code) == (409, "kept")
            delivery = await asyncio.wait_for(world.heard.get(), 5)
            frames = codec.decode_frames(delivery.body, delivery.routing_key, delivery.properties)
            ids |= {each.id for each in frames}
            delivery.ack()
        assert len(ids) == 1
    assert await world.effects.all() == ["a", "b"]


async def test_too_many_requests_under_a_key_may_be_tried_again_with_the_key(world: World) -> None:
    for message in (Add(text="a", how="too many"), AddMany(text="b", how="too many")):
        key = keyed_id(ANN, message.topic, "k1")
        world.script.refuse = True
        with pytest.raises(TooMany):
            await world.requester.ask(message, caller(frame=key))
        world.script.refuse = False
        await world.requester.ask(message, caller(frame=key))
    assert await world.effects.all() == ["a", "b"]


async def test_a_query_is_answered_and_refused(world: World) -> None:
    assert await world.requester.ask(Ask(text="a"), caller()) == "a"
    with pytest.raises(Refusal, match="not now"):
        await world.requester.ask(Ask(text="a", how="refuse"), caller())


# -- raises Retry --------------------------------------------------------------------------------------


async def test_a_retry_that_would_come_too_late_is_503_without_effect(world: World) -> None:
    with pytest.raises(Unavailable):
        await world.requester.ask(Add(text="a", how="retry"), caller(seconds=0.15))
    assert world.script.runs == ["a"]
    assert await world.effects.all() == []


async def test_a_retry_without_deadline_comes_back_through_the_wait_queue(world: World) -> None:
    await world.requester.submit(Add(text="a", how="retry once"), caller())
    await eventually(world.effects.all)
    assert world.script.runs == ["a", "a"]


async def test_a_retry_for_ever_ends_among_the_dead_letters_after_five_runs(world: World) -> None:
    await world.requester.submit(Add(text="a", how="retry"), caller())
    letters = await eventually(world.dead)
    assert [letter["reason"] for letter in letters] == ["too_often"]
    assert world.script.runs == ["a"] * 5


# -- database away -------------------------------------------------------------------------------------


async def test_while_the_database_is_away_waiters_get_503_and_202s_are_kept(world: World) -> None:
    world.inbox.is_away = True
    held = asyncio.create_task(world.requester.ask(Add(text="not executed"), caller(seconds=1)))
    await eventually(lambda: holding(world))
    await world.requester.submit(Add(text="kept"), caller())
    with pytest.raises(Unavailable):
        await held
    assert world.services[0][0].holding
    with pytest.raises((Unavailable, OutcomeUnknown)):
        await world.requester.ask(Add(text="not taken"), caller(seconds=0.2))
    world.inbox.is_away = False
    await eventually(world.effects.all)
    assert await world.effects.all() == ["kept"]
    assert (await world.requester.ask(Add(text="next"), caller())).count >= 1
    assert await world.effects.all() == ["kept", "next"]


@pytest.mark.parametrize("command", [AddMany, AddOne])
async def test_a_batch_and_one_statement_outlive_an_outage(world: World, command: Kind) -> None:
    world.inbox.is_away = True
    for number in range(3):
        await world.requester.submit(command(text=str(number)), caller())

    await eventually(lambda: holding(world))
    world.inbox.is_away = False

    async def all_three() -> bool:
        return len(await world.effects.all()) == 3

    await eventually(all_three)


# -- any other exception -------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["crash", "crash late"])
async def test_a_bug_is_500_and_a_dead_letter_with_its_traceback(world: World, how: str) -> None:
    with pytest.raises(ServiceFailed):
        await world.requester.ask(Add(text="a", how=how), caller())
    letters = await eventually(world.dead)
    assert letters[0]["reason"] == "failed"
    assert "ZeroDivisionError" in letters[0]["traceback"]
    assert await world.effects.all() == []


async def test_one_bad_frame_of_a_batch_fails_alone(world: World) -> None:
    frames = [
        AddMany(text="a"),
        AddMany(text="b", how="crash"),
        AddMany(text="c", how="refuse"),
        AddMany(text="d"),
    ]
    outcomes = await asyncio.gather(
        *(world.requester.ask(frame, caller()) for frame in frames), return_exceptions=True
    )
    assert [type(outcome).__name__ for outcome in outcomes] == ["Added", "ServiceFailed", "Refusal", "Added"]
    assert await world.effects.all() == ["a", "d"]
    assert len(await eventually(world.dead)) == 1


# -- not decodable, unknown, not allowed ---------------------------------------------------------------


async def test_a_body_that_is_not_frames_is_a_dead_letter(world: World) -> None:
    await world.publish(Outgoing(COMMANDS, "probe.add", b"\xc1 no msgpack"), "gateway")
    letters = await eventually(world.dead)
    assert letters[0]["reason"] == "malformed"


async def test_a_frame_whose_body_is_not_the_contract_is_400_and_a_dead_letter(world: World) -> None:
    class Wrong(Add, topic="probe.add"):  # type: ignore[misc]
        text: int  # type: ignore[assignment]

    with pytest.raises(Refusal) as refused:
        await world.requester.ask(Wrong(text=1), caller())  # type: ignore[arg-type]
    assert refused.value.status == 400
    assert (await eventually(world.dead))[0]["reason"] == "malformed"


async def test_a_topic_nobody_handles_is_502_and_one_nobody_takes_is_503(world: World) -> None:
    class Newer(Add, topic="probe.from_a_newer_version"):
        pass

    with pytest.raises(NoSuchTopic):
        await world.requester.ask(Newer(text="a"), caller())
    assert (await eventually(world.dead))[0]["reason"] == "unknown_topic"
    with pytest.raises(Unavailable):
        await world.requester.ask(Stranger(text="a"), caller(seconds=30))


async def test_an_account_executes_only_what_its_contract_lets_it_send(world: World) -> None:
    """S4: the intruder's broker account may even publish the topic, and is not obeyed."""
    forged = Principal(kind="service", id="intruder")
    await world.publish(outgoing(frame_of(Add(text="forged"), forged)), "intruder")
    letters = await eventually(world.dead)
    assert letters[0]["reason"] == "not_allowed"
    await world.publish(outgoing(frame_of(Internal(text="forged"))), "gateway")
    letters = await eventually(world.dead)
    assert letters[0]["reason"] == "not_allowed"
    assert await world.effects.all() == []


async def test_a_message_without_a_verified_publisher_is_not_executed(world: World) -> None:
    await world.publish(outgoing(frame_of(Add(text="anonymous"))), "gateway", user_id=False)
    letters = await eventually(world.dead)
    assert letters[0]["reason"] == "not_allowed"
    assert await world.effects.all() == []


# -- deadlines, draining, killing ----------------------------------------------------------------------


async def test_a_frame_whose_deadline_has_passed_is_not_executed(world: World) -> None:
    late = frame_of(Add(text="late"))
    late = codec.msgspec.structs.replace(late, mode="wait", remaining_ms=100, sent_at=late.born - 60_000)
    await world.publish(outgoing(late, frame_of(Add(text="next"))), "gateway")
    await eventually(world.effects.all)
    assert await world.effects.all() == ["next"]
    assert world.script.runs == ["next"]


async def test_a_handler_that_outlives_the_wait_is_an_unknown_outcome(world: World) -> None:
    with pytest.raises((OutcomeUnknown, Unavailable)):
        await world.requester.ask(Add(text="a", how="wait"), caller(seconds=0.2))
    world.script.gate.set()
    await eventually(world.effects.all)


async def test_what_is_cancelled_while_draining_is_done_by_another_process(world: World) -> None:
    await world.requester.submit(Add(text="a", how="wait"), caller())
    await asyncio.wait_for(world.script.entered.get(), 5)
    service, _ = world.services.pop(0)
    world.script.gate.clear()
    await service.stop(0.05)
    assert await world.effects.all() == []
    world.script.gate.set()
    await world.serve(make_routes())
    assert await eventually(world.effects.all) == ["a"]


async def test_draining_lets_what_runs_end(world: World) -> None:
    asked = asyncio.create_task(world.requester.ask(Add(text="a", how="wait"), caller()))
    await asyncio.wait_for(world.script.entered.get(), 5)
    service, _ = world.services.pop(0)
    stopping = asyncio.create_task(service.stop(5))
    world.script.gate.set()
    await stopping
    assert (await asked).count == 1


async def test_a_frame_that_kills_its_process_is_a_dead_letter_after_five_runs_and_its_neighbours_live(
    world: World,
) -> None:
    killer, innocent = frame_of(Add(text="killer", how="wait")), frame_of(Add(text="innocent"))
    await world.publish(outgoing(killer, innocent), "gateway")
    for _ in range(5):
        async with asyncio.timeout(10):
            while await world.script.entered.get() != "killer":
                pass
        await world.die()
        await world.serve(make_routes())
    letters = await eventually(world.dead)
    assert [letter["reason"] for letter in letters] == ["too_often"]
    assert world.script.runs.count("killer") == 5
    assert await world.effects.all() == ["innocent"]


# -- coalescing ----------------------------------------------------------------------------------------


async def test_frames_that_wait_together_travel_together(world: World) -> None:
    await asyncio.gather(*(world.requester.ask(AddMany(text=str(n)), caller()) for n in range(200)))
    sent = [message for message in world.published if message.exchange == COMMANDS]
    assert len(await world.effects.all()) == 200
    assert sum(world.script.batches) == 200
    if world.request_queues:  # each names a reply queue of its own, so each travels alone
        assert len(sent) == 200
    else:
        assert len(sent) <= 20


async def test_a_frame_of_a_coalesced_message_ends_on_its_own(world: World) -> None:
    slow = asyncio.create_task(world.requester.ask(Add(text="slow", how="wait"), caller()))
    fast = asyncio.create_task(world.requester.ask(Add(text="fast"), caller()))
    await fast
    assert not slow.done()
    world.script.gate.set()
    await slow


# -- publishing ----------------------------------------------------------------------------------------


async def test_a_full_command_queue_is_503_and_nothing_happens(world: World) -> None:
    await world.fill("probe")
    await world.services[0][0].stop(1)
    world.services.clear()

    async def refused() -> bool:
        try:
            await world.requester.submit(Add(text="a"), caller(seconds=2))
        except Unavailable:
            return True
        return False

    await eventually(refused)
    with pytest.raises(Unavailable):
        await world.requester.ask(Add(text="b"), caller(seconds=2))


async def test_commands_are_shed_before_the_queue_is_full_so_that_retries_always_fit(world: World) -> None:
    world.requester.depths["probe"] = Depth(messages=int(MOST_MESSAGES * 0.81), consumers=1)
    for call in (world.requester.ask, world.requester.submit):
        with pytest.raises(Unavailable, match="nearly full"):
            await call(Add(text="a"), caller())
    assert await world.effects.all() == []


async def test_queries_are_shed_before_commands(world: World) -> None:
    world.requester.depths["probe"] = Depth(messages=int(MOST_MESSAGES * 0.61), consumers=1)
    with pytest.raises(Unavailable, match="nearly full"):
        await world.requester.ask(Ask(text="a"), caller())
    assert (await world.requester.ask(Add(text="a"), caller())).count == 1


async def test_a_call_outlives_a_lost_connection_and_has_one_effect(world: World) -> None:
    asked = asyncio.create_task(world.requester.ask(Add(text="a", how="wait"), caller(seconds=10)))
    await asyncio.wait_for(world.script.entered.get(), 5)
    cut = asyncio.create_task(world.cut_gateway())
    await cut
    world.script.gate.set()
    assert (await asked).count == 1
    assert await world.effects.all() == ["a"]


async def test_a_call_whose_repeat_meets_its_first_copy_at_work_waits_for_the_answer(
    world: World,
) -> None:
    key = keyed_id(ANN, "probe.add", "k1")

    def published(least: int) -> Callable[[], Awaitable[bool]]:
        async def enough() -> bool:
            return len(world.published) >= least

        return enough

    async with world.inbox.unit() as unit:
        assert await unit.lock([key]) == {key}
        await world.die()
        asked = asyncio.create_task(world.requester.ask(Add(text="a"), caller(seconds=10, frame=key)))
        await eventually(published(1))
        await world.cut_gateway()
        await eventually(published(2))
        await world.serve(make_routes())
        await eventually(published(4))
    assert (await asked).count == 1
    assert await world.effects.all() == ["a"]


async def test_what_became_of_a_submission(world: World) -> None:
    state = get_submission("probe")
    stored, refused, queued = caller(), caller(), caller()
    await world.requester.submit(Add(text="a"), stored)
    await world.requester.submit(Add(text="b", how="refuse"), refused)
    await world.requester.submit(Add(text="c", how="wait"), queued)
    await eventually(world.effects.all)

    async def states() -> bool:
        found = [await world.requester.ask(state(id=each.id), caller()) for each in (stored, refused, queued)]
        return [each.state for each in found] == ["stored", "refused", "queued"]

    await eventually(states)
    world.script.gate.set()


async def test_a_service_says_what_it_is_and_how_busy(world: World) -> None:
    await world.requester.submit(Add(text="a", how="wait"), caller())
    await asyncio.wait_for(world.script.entered.get(), 5)
    about = await world.requester.ask(get_about("probe")(), caller())
    assert (about.service, about.waiting, about.held) == ("probe", 0, 0)
    assert about.running >= 1
    assert about.process
    world.script.gate.set()


async def test_a_probe_goes_the_way_of_a_command_and_needs_no_database(world: World) -> None:
    about = await world.requester.ask(get_about("probe")(), caller())
    world.inbox.is_away = True
    probed = await world.requester.ask(probe("probe")(text="hello"), caller())
    assert (probed.service, probed.text, probed.process) == ("probe", "hello", about.process)
    assert probed.at >= about.since
    assert [message.exchange for message in world.published] == [QUERIES, COMMANDS]
    sent = world.published[-1]
    assert sent.persistent
    assert sent.mandatory


async def test_a_probe_that_comes_twice_is_answered_twice_and_only_for_the_gateway(world: World) -> None:
    key = keyed_id(ANN, "probe.probe", "k1")
    replies = await asyncio.gather(
        *(world.requester.ask(probe("probe")(text="a"), caller(frame=key)) for _ in range(5))
    )
    assert {reply.text for reply in replies} == {"a"}
    forged = Principal(kind="service", id="intruder")
    message = replace(outgoing(frame_of(probe("probe")(text="a"), forged)), key="probe.add")
    await world.publish(message, "intruder")
    assert (await eventually(world.dead))[0]["reason"] == "not_allowed"


async def test_plain_json_with_amqp_properties_is_one_frame(world: World) -> None:
    for message_id in ("m-1", "m-1", "m-2"):
        message = Outgoing(
            COMMANDS,
            "probe.add",
            b'{"text": "json"}',
            content_type="application/json",
            type="command",
            headers={"message_id": message_id},
        )
        await world.publish(message, "probe" if world.services else "gateway")

    async def two() -> bool:
        return len(await world.effects.all()) == 2

    await eventually(two)


# -- events --------------------------------------------------------------------------------------------


async def test_an_event_heard_twice_has_one_effect(world: World) -> None:
    made = codec.event_id(uuid7(), 0)
    frame = Frame(
        id=made,
        topic=Shouted.topic,
        kind="event",
        body=codec.body_of(Shouted(text="hear")),
        principal=Principal(kind="service", id="intruder"),
    )
    for _ in range(2):
        body = codec.join([codec.encode(frame)])
        await world.publish(Outgoing(EVENTS, Shouted.topic, body, mandatory=False), "intruder")
    await world.requester.submit(Add(text="later"), caller())

    async def both() -> bool:
        return "later" in await world.effects.all() and "hear" in await world.effects.all()

    await eventually(both)
    assert await world.effects.all() == ["hear", "later"]


# -- streams -------------------------------------------------------------------------------------------


async def test_a_stream_arrives_in_order_and_whole(world: World) -> None:
    parts = [part async for part in world.requester.stream(Stream(most=50), caller())]
    assert parts == list(range(50))


async def test_a_slow_reader_slows_the_sender_and_a_gone_one_stops_it(world: World) -> None:
    parts = world.requester.stream(Stream(most=10_000), caller())
    assert await anext(parts) == 0

    async def settled() -> bool:
        before = world.script.produced
        await asyncio.sleep(0.1)
        return world.script.produced == before

    await eventually(settled)
    assert world.script.produced <= 40
    await parts.aclose()  # type: ignore[attr-defined]
    await asyncio.wait_for(world.script.stopped.wait(), 5)
    assert world.script.produced <= 60


async def test_a_stream_can_be_refused_and_can_fail_in_the_middle(world: World) -> None:
    with pytest.raises(Refusal, match="not now"):
        await anext(world.requester.stream(Stream(most=1, how="refuse"), caller()))
    parts: list[int] = []
    with pytest.raises(ServiceFailed):
        await collect(world.requester.stream(Stream(most=10, how="crash"), caller()), parts)
    assert parts == list(range(5))


async def test_many_streams_take_turns_in_making_their_parts(world: World) -> None:
    """What they make them with, connections to the database above all, is not theirs alone."""
    streams = [world.requester.stream(Stream(most=5, how="slow"), caller()) for _ in range(8)]
    found: list[list[int]] = [[] for _ in streams]
    await asyncio.gather(*(collect(stream, into) for stream, into in zip(streams, found, strict=True)))
    assert found == [list(range(5))] * 8
    assert world.script.most_making == MADE_AT_ONCE


async def collect(stream: AsyncIterator[int], into: list[int]) -> None:
    async for part in stream:
        into.append(part)


async def test_queries_go_their_own_way(world: World) -> None:
    await world.requester.ask(Ask(text="a"), caller())
    assert [message.exchange for message in world.published] == [QUERIES]
