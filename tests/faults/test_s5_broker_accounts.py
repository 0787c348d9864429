"""S5: every broker account tries every operation on all there is, and may do what its list says alone.

The lists are written here by hand, after design.md ("Rights"); what is tried comes from the running broker.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote, urlsplit

import aiohttp
import pytest
from pamqp.commands import Basic, Exchange, Queue
from yarl import URL

from deploy.broker import accounts, add_account, queues, remove_account
from deploy.cli.doctor.broker import topology_as_declared
from shared.bus.topology import Rights, service_rights
from shared.contracts.registry import messages
from tests.broker import VirtualHost
from tests.faults.bare_amqp import BareAmqp, Closed, Refused
from tests.faults.intruders import Place, Try, bound, copied, given_on, lets, mqtt_lets, pretended, tries
from tests.servers import required
from tests.suites.worlds import eventually

pytestmark = pytest.mark.timeout(300)

COMMANDS, QUERIES, EVENTS = "posthouse.commands", "posthouse.queries", "posthouse.events"
LOGS, WAIT, DEAD, REPLIES = "posthouse.logs", "posthouse.wait", "posthouse.dead", "posthouse.replies"
OURS = {COMMANDS, QUERIES, EVENTS, LOGS, WAIT, DEAD, REPLIES, "posthouse.mqtt_lost"}
THEIRS = {"", "amq.direct", "amq.fanout", "amq.headers", "amq.match", "amq.rabbitmq.trace", "amq.topic"}
SERVICES = ("auth", "ingest", "chat", "worker")
NOBODYS = {*(f"dead.{name}" for name in SERVICES), "dead.mqtt", "wait.10s", "wait.10m"}
TOPIC = re.compile(r"[a-z][a-z0-9_]*\.[a-z0-9_]+")
STRANGER, SILENT = "weather_" + secrets.token_hex(3), "silent_" + secrets.token_hex(3)
ODD = ("", "#", "*", "auth", "auth.", "auth.a.b", "Auth.x", "gateway.x\n", f"{STRANGER}.x\n", "auth.x\n")
NEW = ("posthouse.new", "amq.new", "auth.new", "dead.new", "new", "new\n", "\n", "")

# What the broker's rights cannot tell from what an account needs. Whoever receives it refuses it, by the
# account the broker vouches for (S4); a binding of exchanges that nobody asked for is found by the doctor.
# - Topic rights are asked about the routing key alone, not about the CC and BCC of a message, until
#   RabbitMQ 4.0.3 (rabbitmq-server, pull request 12553).
# - A queue of one's own is bound with `read` on the exchange; with `write` on another, that is bound too.
COPIES, COPIES_CHECKED_SINCE = ("publish with CC", "publish with BCC"), (4, 0, 3)


def keys_of(place: Place, account: str) -> dict[str, tuple[str, ...]]:
    """What an account publishes with, by exchange."""
    names = dict.fromkeys((*SERVICES, "gateway", "nobody", STRANGER, account))
    any_topic = (*(f"{name}.anything" for name in names), *messages(), f"{STRANGER}.storm_seen", *ODD)
    return {
        **dict.fromkeys(place.exchanges, ("gateway.replies.x", "channels.1.publish", "ingest", "")),
        "": (*place.queues, *ODD),
        **dict.fromkeys((COMMANDS, QUERIES, EVENTS), any_topic),
        LOGS: (*(f"{name}.error" for name in names), *ODD),
        WAIT: (*(f"{name}.{wait}" for name in names for wait in ("10s", "10m", "1h", "10s\n")), *ODD),
        DEAD: (*names, *(f"{name}\n" for name in names), "mqtt", *ODD),
    }


@dataclass(frozen=True)
class Listed:
    """What an account may do: publish to exchanges with some keys, take from queues, own a prefix."""

    publishes: Mapping[str, Callable[[str], bool]]
    takes: frozenset[str] = frozenset()
    binds: frozenset[str] = frozenset()
    prefix: str = ""

    def has(self, one: Try) -> bool:
        """Whether this is on the list."""
        if one.does in ("look at queue", "look at exchange"):
            return one.to != ""  # to see that something is there needs no rights, or nobody could check it
        if one.does == "publish":
            return one.to in self.publishes and self.publishes[one.to](one.by)
        if one.does in ("consume", "get", "purge"):
            return one.to in self.takes
        return bool(self.prefix) and self._of_its_own(one)

    def _of_its_own(self, one: Try) -> bool:
        if one.does in ("declare queue", "declare exchange"):
            return one.to.startswith(self.prefix)
        if one.does in ("give dead letters", "give the unroutable"):
            return one.by.startswith(self.prefix) and one.to in self.publishes
        return False


def anything(_: str) -> bool:
    return True


def service(name: str, *more: str, announces: Callable[[str], bool] | None = None) -> Listed:
    """Its commands to itself, its events, replies, its log lines, its waits and dead letters; its queues."""

    def own(key: str) -> bool:
        return bool(TOPIC.fullmatch(key)) and key.startswith(f"{name}.")

    return Listed(
        {
            COMMANDS: own,
            EVENTS: announces or own,
            REPLIES: anything,
            LOGS: lambda key: key.startswith(f"{name}."),
            WAIT: lambda key: key in (f"{name}.10s", f"{name}.10m"),
            DEAD: lambda key: key == name,
        },
        takes=frozenset({name, f"{name}.queries", f"{name}.events", *more}),
    )


LISTS = {
    "gateway": Listed(
        {
            COMMANDS: lambda key: bool(TOPIC.fullmatch(key)),
            QUERIES: lambda key: bool(TOPIC.fullmatch(key)),
            LOGS: lambda key: key.startswith("gateway."),
        },
        binds=frozenset({REPLIES, EVENTS, LOGS}),
        prefix="gateway.",
    ),
    "auth": service("auth"),
    "ingest": service("ingest"),
    "chat": service("chat"),
    "worker": service("worker", "worker.logs"),
    "monitor": Listed({}),
    STRANGER: service(STRANGER, announces=lambda key: key == f"{STRANGER}.storm_seen"),
    SILENT: service(SILENT, announces=lambda key: False),
}


@dataclass
class Broker:
    """A virtual host as production has it, a second one, and the strangers' addresses."""

    host: VirtualHost
    other: VirtualHost
    strangers: Mapping[str, str]
    place: Place
    checks_copies: bool
    amqp: BareAmqp
    environment: dict[str, str]

    def url(self, account: str) -> str:
        """Where an account connects, with its password."""
        return self.strangers.get(account) or self.host.url(account)

    def password(self, account: str) -> str:
        return urlsplit(self.url(account)).password or ""

    def for_other(self, account: str) -> str:
        """The same account at the second virtual host."""
        return urlsplit(self.url(account))._replace(path=f"/{self.other.name}").geturl()


@pytest.fixture(scope="module")
async def broker(amqp_url: str, management_url: str) -> AsyncIterator[Broker]:
    async with AsyncExitStack() as stack:
        host = VirtualHost(amqp_url, management_url, queues(), accounts())
        other = VirtualHost(amqp_url, management_url, [], {})
        for place in (host, other):
            await stack.enter_async_context(place)
        environment = {"POSTHOUSE_AMQP_URL": host.admin, "POSTHOUSE_MANAGEMENT_URL": management_url}
        announces = {STRANGER: [f"{STRANGER}.storm_seen"], SILENT: []}
        strangers = {
            name: (await add_account(environment, name, [], announces[name])).url for name in announces
        }
        await host.management.keep_unroutable_mqtt()
        amqp = await stack.enter_async_context(BareAmqp(host.admin))
        await amqp.ask(Basic.Qos(prefetch_count=1))  # so that the management API knows a connection in time
        version = (await host.management.call("GET", "/overview"))["rabbitmq_version"]
        checks = tuple(int(part) for part in re.findall(r"\d+", version)[:3]) >= COPIES_CHECKED_SINCE
        yield Broker(host, other, strangers, await what_is_there(host), checks, amqp, environment)
        for name in strangers:
            await remove_account(environment, name)


async def what_is_there(host: VirtualHost) -> Place:
    """Asked of the broker, not of who declared it."""
    call, name = host.management.call, host.name
    bindings = await call("GET", f"/bindings/{name}")
    return Place(
        {one["name"]: one["type"] for one in await call("GET", f"/exchanges/{name}")},
        tuple(one["name"] for one in await call("GET", f"/queues/{name}")),
        tuple((one["source"], one["routing_key"], one["destination"]) for one in bindings if one["source"]),
    )


def all_tries(place: Place, account: str, listed: Listed) -> Iterable[Try]:
    """Of one account: everything, and in the names of others."""
    keys = {exchange: keys_of(place, account)[exchange] for exchange in place.exchanges}
    yield from tries(place, keys, (*NEW, f"{account}.new"))
    yield from given_on(f"{account}.new", place)
    for exchange, has in listed.publishes.items():
        inside = [key for key in keys.get(exchange, ()) if has(key)]
        outside = [key for key in keys.get(exchange, ()) if not has(key)]
        for key in inside[:1]:
            yield from (
                pretended(exchange, key, name) for name in (*LISTS, "admin", "guest") if name != account
            )
            yield from (copied(exchange, key, to, header) for to in outside[:3] for header in ("CC", "BCC"))


@dataclass(frozen=True)
class Tried:
    """Of one account: how much it tried, what it may do beyond its list, and what of its list it may not."""

    count: int
    outside: tuple[Try, ...]
    not_told_apart: tuple[Try, ...]
    lacking: tuple[Try, ...]


async def tried(url: str, account: str, listed: Listed, place: Place) -> Tried:
    """Try everything."""
    async with BareAmqp(url) as amqp:
        found = [(one, await lets(amqp, one)) for one in all_tries(place, account, listed)]
    outside = [one for one, may in found if may and not listed.has(one)]
    return Tried(
        len(found),
        tuple(one for one in outside if not is_known(one, listed)),
        tuple(one for one in outside if is_known(one, listed)),
        tuple(one for one, may in found if not may and listed.has(one)),
    )


def is_known(one: Try, listed: Listed) -> bool:
    """Whether it is what the broker cannot tell apart from what the account needs."""
    if one.does == "bind exchange":
        return one.to in listed.publishes and one.by in listed.binds
    return one.does in COPIES and one.to in listed.publishes


def test_the_lists_name_every_account_queue_and_exchange_there_is(broker: Broker) -> None:
    assert set(LISTS) == {*accounts(), STRANGER, SILENT}
    taken = frozenset().union(*(listed.takes for listed in LISTS.values()))
    assert set(broker.place.queues) == taken | NOBODYS | {f"dead.{STRANGER}", f"dead.{SILENT}"}
    assert set(broker.place.exchanges) == OURS | THEIRS


async def test_an_account_may_do_what_its_list_says_and_nothing_else(broker: Broker) -> None:
    each = await asyncio.gather(*(tried(broker.url(name), name, LISTS[name], broker.place) for name in LISTS))
    found = dict(zip(LISTS, each, strict=True))
    assert {name: one.lacking for name, one in found.items() if one.lacking} == {}
    assert {name: one.outside for name, one in found.items() if one.outside} == {}
    things = len(broker.place.exchanges) + len(broker.place.queues)
    print(
        f"\nS5: {len(LISTS)} accounts, {things} exchanges and queues, "
        f"{sum(one.count for one in each):,} tries, allowed outside their list 0; "
        f"{sum(len(one.not_told_apart) for one in each)} by CC, BCC and exchange bindings, "
        "which the broker cannot tell apart and whoever receives refuses"
    )

    by_copies = [one for name in found for one in found[name].not_told_apart if one.does in COPIES]
    assert bool(by_copies) is not broker.checks_copies


async def test_the_gateway_binds_its_own_queues_to_what_it_hears_and_to_nothing_else(broker: Broker) -> None:
    async with BareAmqp(broker.url("gateway")) as amqp:
        may = {exchange for exchange in broker.place.exchanges if await binds(amqp, exchange)}
    assert may == LISTS["gateway"].binds


async def binds(amqp: BareAmqp, exchange: str) -> bool:
    """Whether a queue of its own can be bound to it; one for each, because a refusal closes the channel."""
    name = f"gateway.{secrets.token_hex(4)}"
    assert not isinstance(await amqp.ask(Queue.Declare(0, name, exclusive=True)), Closed)
    return await lets(amqp, bound(name, exchange))


async def test_a_binding_of_exchanges_is_found_by_the_doctor(broker: Broker) -> None:
    async with BareAmqp(broker.url("gateway")) as amqp:
        assert not isinstance(await amqp.ask(Exchange.Bind(0, COMMANDS, EVENTS, "x.y")), Closed)
        found = [finding.words for finding in await topology_as_declared(broker.environment)]
        await amqp.ask(Exchange.Unbind(0, COMMANDS, EVENTS, "x.y"))
    words = f"the exchange {COMMANDS} is bound to {EVENTS} with x.y, which nothing of Posthouse asked for"
    assert words in found


async def test_no_account_gets_into_another_virtual_host(broker: Broker) -> None:
    for name in LISTS:
        async with BareAmqp(broker.for_other(name)) as amqp:
            with pytest.raises(Refused):
                await amqp.ask(Basic.Qos(prefetch_count=1))


async def test_over_mqtt_no_account_may_do_anything(broker: Broker) -> None:
    parts = urlsplit(required("POSTHOUSE_TEST_MQTT_URL"))
    port, host = parts.port or 0, broker.host.name

    async def may(name: str, password: str) -> set[str]:
        return await mqtt_lets(parts.hostname or "", port, f"{host}:{name}", password)

    admin = urlsplit(broker.host.admin)
    assert {name: await may(name, broker.password(name)) for name in LISTS} == {name: set() for name in LISTS}
    assert await may(admin.username or "", admin.password or "") >= {"subscribe"}
    await eventually(lambda: has_one(broker, "dead.mqtt"))  # the administrator's, and nobody else's


async def has_one(broker: Broker, queue: str) -> bool:
    """Whether exactly one message has come."""
    answer = await broker.amqp.ask(Queue.Declare(0, queue, passive=True))
    assert answer.message_count <= 1
    return bool(answer.message_count)


# -- the management API ------------------------------------------------------------------------------------

READS = (
    "/overview",
    "/nodes",
    "/queues/{here}",
    "/queues/{here}/auth",
    "/exchanges/{here}",
    "/bindings/{here}",
)
READS += ("/connections", "/channels", "/consumers", "/policies", "/whoami")
# Nobody but an administrator: all accounts, their rights and the hashes of their passwords.
SECRETS = (
    "/users",
    "/users/gateway",
    "/permissions",
    "/topic-permissions",
    "/definitions",
    "/definitions/{here}",
)
RIGHTS = {"configure": ".*", "write": ".*", "read": ".*"}
CHANGES: tuple[tuple[str, str, Any], ...] = (
    ("PUT", "/users/intruder", {"password": "x", "tags": "administrator"}),
    ("DELETE", "/users/{stranger}", None),
    ("PUT", "/permissions/{here}/{me}", RIGHTS),
    ("PUT", "/permissions/{there}/{me}", RIGHTS),
    ("PUT", "/topic-permissions/{here}/{me}", {"exchange": COMMANDS, "write": ".*", "read": ".*"}),
    ("DELETE", "/topic-permissions/{here}/{me}", None),
    ("PUT", "/vhosts/{here}-more", {}),
    ("DELETE", "/vhosts/{there}", None),
    ("PUT", "/policies/{here}/mine", {"pattern": "^auth$", "definition": {"max-length": 1}}),
    ("PUT", "/operator-policies/{here}/mine", {"pattern": "^auth$", "definition": {"max-length": 1}}),
    ("PUT", "/vhost-limits/{here}/max-queues", {"value": 1_000}),
    ("PUT", "/user-limits/{me}/max-channels", {"value": 1_000}),
    ("PUT", "/parameters/shovel/{here}/mine", {"value": {}}),
    ("PUT", "/global-parameters/mine", {"value": {}}),
    ("POST", "/definitions", {"queues": []}),
    ("POST", "/definitions/{here}", {"queues": []}),
    ("PUT", "/queues/{here}/{me}.new", {"durable": False}),
    ("DELETE", "/queues/{here}/auth", None),
    ("DELETE", "/queues/{here}/auth/contents", None),
    ("POST", "/queues/{here}/auth/get", {"count": 1, "ackmode": "ack_requeue_true", "encoding": "auto"}),
    ("POST", "/queues/{here}/auth/actions", {"action": "sync"}),
    ("PUT", "/exchanges/{here}/{me}.new", {"type": "topic"}),
    ("DELETE", "/exchanges/{here}/posthouse.wait", None),
    (
        "POST",
        "/exchanges/{here}/posthouse.commands/publish",
        {"properties": {}, "routing_key": "auth.x", "payload": "x", "payload_encoding": "string"},
    ),
    ("POST", "/bindings/{here}/e/posthouse.commands/q/auth", {"routing_key": "ingest.#"}),
    ("DELETE", "/bindings/{here}/e/posthouse.commands/q/auth/auth.%23", None),
    ("POST", "/rebalance/queues", {}),
    ("DELETE", "/connections/{connection}", None),
)


@asynccontextmanager
async def client_of(broker: Broker, account: str) -> AsyncIterator[Callable[[str, str, Any], Any]]:
    """Asks the management API with an account's own password; answers the status."""
    parts = urlsplit(required("POSTHOUSE_TEST_MANAGEMENT_URL"))
    login = {"Authorization": aiohttp.encode_basic_auth(account, broker.password(account))}
    connection = await eventually(lambda: a_connection(broker))
    names = {"here": broker.host.name, "there": broker.other.name, "me": account, "stranger": STRANGER}
    names["connection"] = quote(connection, safe="")
    async with aiohttp.ClientSession(headers=login) as client:

        async def ask(method: str, path: str, body: Any) -> int:
            url = URL(f"http://{parts.hostname}:{parts.port}/api{path.format(**names)}", encoded=True)
            async with client.request(method, url, json=body) as answer:
                return answer.status

        yield ask


async def a_connection(broker: Broker) -> str:
    return next(iter(await broker.host.connections()), "")


async def done_by(broker: Broker, account: str) -> set[tuple[str, str]]:
    """What an account gets done."""
    asked = [*(("GET", path, None) for path in (*READS, *SECRETS)), *CHANGES]
    async with client_of(broker, account) as ask:
        return {(method, path) for method, path, body in asked if await ask(method, path, body) < 300}


async def test_the_management_api_is_read_by_the_monitor_alone_and_changed_by_nobody(broker: Broker) -> None:
    done = {name: await done_by(broker, name) for name in LISTS}
    assert done.pop("monitor") == {("GET", path) for path in READS}
    assert not any(done.values()), done


# -- one right too many, and it is found -------------------------------------------------------------------

SOME = Place({"": "direct", COMMANDS: "topic", EVENTS: "topic"}, ("ingest", "dead.ingest"))


@dataclass(frozen=True)
class TooMuch:
    """Rights with something in them that should not be, and how it shows."""

    rights: Callable[[Rights], Rights]
    shows: set[tuple[str, str]]


TOO_MUCH = {
    "the default exchange": TooMuch(
        lambda own: replace(own, write=rf"{own.write}|^amq\.default$"), {("publish", "")}
    ),
    "a queue of another": TooMuch(
        lambda own: replace(own, read=rf"{own.read}|^ingest$"),
        {("consume", "ingest"), ("get", "ingest"), ("purge", "ingest")},
    ),
    "all topics": TooMuch(
        lambda own: replace(own, topics=own.topics | {EVENTS: ".*"}), {("publish", EVENTS)}
    ),
    "a forgotten exchange": TooMuch(
        lambda own: replace(own, topics={key: own.topics[key] for key in own.topics if key != COMMANDS}),
        {("publish", COMMANDS)},
    ),
    "names of its own": TooMuch(
        lambda own: replace(own, configure="^new$"), {("declare queue", "new"), ("declare exchange", "new")}
    ),
}


@pytest.mark.parametrize("what", TOO_MUCH)
async def test_one_right_too_many_is_found(broker: Broker, what: str) -> None:
    name = "bare_" + secrets.token_hex(3)
    await broker.host.management.account(name, "test", TOO_MUCH[what].rights(service_rights(name)))
    found = await tried(broker.host.url(name), name, service(name), SOME)
    await broker.host.management.remove(name)
    assert {(one.does, one.to.strip()) for one in found.outside} == TOO_MUCH[what].shows


async def test_one_right_too_few_is_found(broker: Broker) -> None:
    name = "bare_" + secrets.token_hex(3)
    own = service_rights(name)
    await broker.host.management.account(name, "test", replace(own, write="^$"))
    found = await tried(broker.host.url(name), name, service(name), SOME)
    await broker.host.management.remove(name)
    assert {(one.does, one.to) for one in found.lacking} == {("publish", COMMANDS), ("publish", EVENTS)}


async def test_a_tag_too_many_is_found(broker: Broker) -> None:
    name = "bare_" + secrets.token_hex(3)
    rights = replace(service_rights(name), tags="management")
    await broker.host.management.account(name, "test", rights)
    found = await done_by(broker, name)
    await broker.host.management.remove(name)
    assert ("GET", "/whoami") in found
