"""What the figures of the broker come to, and that many who look ask it once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import web

from services.gateway.management import Broker
from services.gateway.pages.operations import lasting, size
from services.gateway.queues import Memory, NodeState, Overview, QueueState, Sample, overview, place_of
from shared.bus.pressure import Depth
from shared.bus.topology import SERVICES, service_queues, shared_queues
from tests.unit.gateway.door import House

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
NODE = {"name": "one@host", "running": True, "uptime": 60_000, "mem_used": 1, "mem_limit": 10, "disk_free": 9}
DECLARED = [
    *(queue for name in SERVICES for queue in service_queues(name, logs=name == "worker")),
    *shared_queues(),
]


def healthy(**changed: Any) -> list[dict[str, Any]]:
    """Every queue as the management API says it, at rest; `changed` by name, with _ for dots."""
    found = []
    for queue in DECLARED:
        is_taken = not queue.name.startswith(("dead.", "wait."))
        one = {
            "name": queue.name,
            "type": queue.arguments.get("x-queue-type", "classic"),
            "state": "running",
            "messages": 0,
            "message_bytes": 0,
            "consumers": int(is_taken),
            "arguments": queue.arguments,
        }
        more = changed.pop(queue.name.replace(".", "_"), {})
        if more is not None:
            found.append({name: value for name, value in (one | more).items() if value is not None})
    assert not changed
    return found


def seen(
    memory: Memory | None = None,
    seconds: float = 0,
    depths: dict[str, Depth] | None = None,
    node: dict[str, Any] = NODE,
    **changed: Any,
) -> Overview:
    items = healthy(**changed)
    answer = {"items": items, "filtered_count": len(items)}
    at = NOON + timedelta(seconds=seconds)
    return overview(answer, [node], depths or {}, memory or Memory(), at)


def one(found: Overview, name: str) -> QueueState:
    return next(item for item in found.items if item.name == name)


def complaints(found: Overview) -> dict[str, str]:
    seen: list[QueueState | NodeState] = [*found.items, *found.nodes]
    return {item.name: item.advice for item in seen if item.level != "good"}


def test_at_rest_nothing_is_to_be_done() -> None:
    found = seen()
    assert complaints(found) == {}
    assert len(found.items) == len(DECLARED)
    assert (one(found, "auth").consumers, one(found, "auth").consumers_expected) == (1, 1)
    assert one(found, "dead.auth").consumers_expected is None


@pytest.mark.parametrize(
    ("name", "house", "kind"),
    [
        ("auth", "auth", "commands"),
        ("worker.logs", "worker", "logs"),
        ("dead.ingest", "ingest", "dead"),
        ("dead.mqtt", "devices", "dead"),
        ("wait.10s", "every service", "wait"),
        ("gateway.replies.0123", "gateway", "replies"),
        ("gateway.live.0123", "gateway", "live"),
        ("weather.queries", "weather", "queries"),
        ("somebody.elses", "somebody", "other"),
    ],
)
def test_a_queue_belongs_to_a_house_and_holds_a_kind(name: str, house: str, kind: str) -> None:
    assert place_of(name, {*SERVICES, "weather"}) == (house, kind)


@pytest.mark.parametrize(
    ("changed", "name", "words"),
    [
        ({"chat_events": None}, "chat.events", "doctor --mend"),
        ({"dead_auth": {"messages": 2}}, "dead.auth", "logs auth (frame_dead_lettered)"),
        ({"dead_mqtt": {"messages": 2}}, "dead.mqtt", "topics nobody listens to"),
        ({"ingest": {"messages": 41_000}}, "ingest", "82% full, and requests are turned away"),
        ({"ingest": {"messages": 31_000}}, "ingest", "62% full, and reads are turned away"),
        ({"ingest": {"message_bytes": 1 << 30}}, "ingest", "100% full"),
        ({"wait_10m": {"messages": 45_000}}, "wait.10m", "what they wait for is away"),
        ({"auth": {"messages_dlx": 3}}, "auth", "3 of its messages are on their way"),
        ({"auth": {"state": "down"}}, "auth", "The broker says it is down"),
        ({"auth": {"messages": 1, "head_message_timestamp": 1_769_860_000}}, "auth", "waits for long"),
    ],
)
def test_what_is_wrong_says_what_to_do(changed: dict[str, Any], name: str, words: str) -> None:
    found = complaints(seen(**changed))
    assert list(found) == [name]
    assert words in found[name]


@pytest.mark.parametrize(
    ("name", "late", "changed", "words"),
    [
        ("chat.queries", 5, {"chat_queries": {"consumers": 0}}, "logs chat"),
        ("dead.chat", 12, {"dead_chat": {"state": None, "messages": None}}, "no leader"),
        ("dead.auth", 12, {"dead_auth": {"state": "running", "messages": None}}, "no leader"),
        (
            "chat.events",
            5,
            {
                "chat": {"consumers": 2},
                "chat_queries": {"consumers": 4},
                "chat_events": {"consumers": 1},
            },
            "Not every process",
        ),
    ],
)
def test_what_a_restart_looks_like_is_told_when_it_stays_so(
    name: str, late: int, changed: dict[str, Any], words: str
) -> None:
    memory = Memory()
    assert complaints(seen(memory, **changed)) == {}
    assert complaints(seen(memory, late - 1, **changed)) == {}
    told = complaints(seen(memory, late + 1, **changed))
    assert list(told) == [name]
    assert words in told[name]
    assert complaints(seen(memory, late + 3)) == {}
    assert complaints(seen(memory, late + 5, **changed)) == {}


def test_what_the_gateway_asks_itself_is_newer_than_the_management_api() -> None:
    found = seen(depths={"chat": Depth(messages=7, consumers=3)}, chat={"messages": 1})
    assert (one(found, "chat").messages, one(found, "chat").consumers) == (7, 3)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"mem_alarm": True}, "too little memory"),
        ({"disk_free_alarm": True}, "too little disk"),
        ({"running": False}, "does not run"),
    ],
)
def test_an_alarm_is_told(changed: dict[str, Any], words: str) -> None:
    assert words in complaints(seen(node=NODE | changed))["one@host"]


def test_the_oldest_message_has_waited_since_none_of_those_before_it_left() -> None:
    memory = Memory()
    assert memory.saw("q", Sample(0, 3, 3, 0)) == 0
    assert memory.saw("q", Sample(60, 3, 3, 0)) == 55
    assert memory.saw("q", Sample(120, 2, 4, 2)) == 115  # two left, one came: the third is still there
    assert memory.saw("q", Sample(180, 2, 6, 4)) == 0  # all that were there at 120 may have left
    assert memory.saw("q", Sample(240, 0, 6, 6)) is None
    assert memory.saw("q", Sample(300, 1, 7, 6)) == 0


def test_a_busy_queue_that_is_never_seen_empty_has_no_old_message() -> None:
    memory = Memory()
    ages = [memory.saw("q", Sample(at * 10, 50, at * 1_000 + 50, at * 1_000)) for at in range(20)]
    assert set(ages) == {0}


def test_messages_that_expire_or_come_from_the_broker_itself_are_not_taken_for_old_ones() -> None:
    memory = Memory()
    memory.saw("expires", Sample(0, 5, 5, 0))
    assert memory.saw("expires", Sample(60, 5, 10, 0)) == 0
    memory.saw("moved", Sample(0, 5, 0, 0))
    assert memory.saw("moved", Sample(60, 5, 0, 5)) == 0


def test_counters_that_begin_anew_with_the_broker_are_no_proof() -> None:
    memory = Memory()
    memory.saw("q", Sample(0, 5, 1_000, 995))
    assert memory.saw("q", Sample(60, 5, 0, 0)) == 0
    assert memory.saw("q", Sample(120, 5, 0, 0)) == 55


@dataclass
class Api:
    """A management API that counts who asks."""

    url: str = ""
    asked: list[str] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    status: int = 200

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        if request.path.endswith("/nodes"):
            return web.json_response([NODE], status=self.status)
        items = healthy()
        return web.json_response({"items": items, "filtered_count": len(items)}, status=self.status)


@asynccontextmanager
async def serving(api: Api) -> AsyncIterator[Broker]:
    app = web.Application()
    app.router.add_get("/{any:.*}", api.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    broker = Broker(
        f"http://monitor:word@127.0.0.1:{port}",
        "amqp://gateway:x@127.0.0.1/a%2Fb",
        lambda: {"auth": Depth(messages=4, consumers=0), "chat": Depth(present=False)},
    )
    try:
        yield broker
    finally:
        await broker.close()
        await runner.cleanup()


async def test_many_who_look_at_once_ask_the_broker_once() -> None:
    api = Api()
    async with serving(api) as broker:
        found = await asyncio.gather(*(broker.look() for _ in range(50)))
    assert len(api.asked) == 2
    assert api.most_at_once == 1
    assert len({id(one) for one in found}) == 1
    assert broker.vhost == "a%2Fb"
    assert "word" not in broker.page


async def test_while_the_api_is_away_the_gateway_says_what_it_counts_itself(house: House, token: str) -> None:
    api = Api(status=500)
    async with serving(api) as broker:
        house.gateway.broker = broker
        answer = (await house.request("GET", "/v1/queues", token=token)).json
    assert "500" in answer["away"]
    told = [(one["name"], one["messages"], one["state"]) for one in answer["items"]]
    assert told == [("auth", 4, ""), ("chat", None, "missing")]


async def test_the_queues_are_for_administrators(house: House, token: str) -> None:
    assert (await house.request("GET", "/v1/queues")).status == 401
    nobody = house.services.token(roles=())
    assert (await house.request("GET", "/v1/queues", token=nobody)).status == 403
    assert "is not set" in (await house.request("GET", "/v1/queues", token=token)).json["away"]
    async with serving(Api()) as broker:
        house.gateway.broker = broker
        answer = await house.request("GET", "/v1/queues", token=token)
    assert answer.status == 200
    assert answer.json["at"].endswith("Z")
    assert len(answer.json["items"]) == len(DECLARED)


async def test_the_page_shows_every_queue_and_says_what_to_do(pages: House) -> None:
    token = pages.services.token()
    async with serving(Api()) as broker:
        pages.gateway.broker = broker
        shown = (await pages.request("GET", "/operations", token=token)).body.decode()
        elsewhere = {"X-Forwarded-For": "192.0.2.1"}
        told = (await pages.request("GET", "/operations", token=token, headers=elsewhere)).body.decode()
    for queue in DECLARED:
        assert f'data-queue="{queue.name}"' in shown
    address = f'href="{broker.page}#/queues/a%2Fb/auth"'
    assert address in shown
    assert address not in told
    assert "ssh -L" in told
    assert "word" not in shown.replace("password", "")


async def test_the_page_says_when_the_management_api_is_away_or_not_known(pages: House) -> None:
    token = pages.services.token()
    shown = await pages.request("GET", "/operations", token=token)
    assert (shown.status, b"The queues cannot be looked at" in shown.body) == (200, True)
    async with serving(Api(status=500)) as broker:
        pages.gateway.broker = broker
        shown = await pages.request("GET", "/operations", token=token)
    assert b"management API does not answer" in shown.body
    assert b'data-queue="auth"' in shown.body
    nobody = pages.services.token(roles=())
    assert (await pages.request("GET", "/operations", token=nobody)).status == 403


@pytest.mark.parametrize(
    ("number", "words"),
    [(None, "\N{EN DASH}"), (0, "0 B"), (999, "999 B"), (1_500, "1.5 kB"), (10_110_604_083, "10.1 GB")],
)
def test_sizes_are_short(number: int | None, words: str) -> None:
    assert size(number) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(None, "\N{EN DASH}"), (4.2, "4 s"), (600, "10 min"), (7_200, "2 h"), (864_000, "10 d")],
)
def test_times_are_short(seconds: float | None, words: str) -> None:
    assert lasting(seconds) == words
