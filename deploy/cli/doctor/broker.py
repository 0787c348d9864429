"""RabbitMQ: nodes, what is declared beside what should be, rights, and how each queue does."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from deploy.cli.doctor.finding import SECONDS, Environment, Finding, mendable

if TYPE_CHECKING:
    from deploy.broker import Management
    from shared.bus.topology import Queue, Rights

FULL = 0.8  # of what a queue may hold, above which the gateway turns commands away
ASK_SECONDS = 3.0
LEADER_SECONDS, LOOK_SECONDS = 15.0, 0.5
# What a policy must not change: it decides what happens to messages.
MEANT = (
    "dead-letter-exchange",
    "dead-letter-routing-key",
    "dead-letter-strategy",
    "delivery-limit",
    "expires",
    "max-length",
    "max-length-bytes",
    "message-ttl",
    "overflow",
)
Json = Mapping[str, Any]


async def nodes(environment: Environment) -> list[Finding]:
    """Whether each runs, and takes what is sent."""
    from deploy.broker import Management

    async with Management(environment) as management:
        return [_node(node) for node in await management.call("GET", "/nodes")]


def _node(node: Json) -> Finding:
    name = f"node {node['name']}"
    if not node.get("running"):
        return Finding("rabbitmq", f"{name} does not run", "./posthouse logs rabbitmq")
    if node.get("disk_free_alarm"):
        return Finding("rabbitmq", f"{name} has too little disk left and takes nothing", "Free some disk.")
    if node.get("mem_alarm"):
        return Finding("rabbitmq", f"{name} has too little memory left and takes nothing", "Give it more.")
    if node.get("partitions"):
        return Finding("rabbitmq", f"{name} has lost sight of others", "Restart the smaller part of them.")
    return Finding("rabbitmq", f"{name} runs")


async def topology_as_declared(environment: Environment) -> list[Finding]:
    """Exchanges, queues with their arguments, bindings, dead-letter routes among them."""
    from deploy.broker import Management, queues

    wanted = queues()
    async with Management(environment) as management:
        place = management.virtual_host
        exchanges = await management.call("GET", f"/exchanges/{place}")
        there = await management.call("GET", f"/queues/{place}")
        bindings = await management.call("GET", f"/bindings/{place}")
        policies = await management.call("GET", f"/policies/{place}")
        limits = await management.call("GET", f"/operator-policies/{place}")
    found = [*_exchanges(exchanges), *_lost_mqtt(policies)]
    by_name = {one["name"]: one for one in there}
    for queue in wanted:
        found += _declared(queue, by_name.get(queue.name))
        found += [*_changed(queue.name, policies), *_changed(queue.name, limits)]
    found += _bindings(wanted, {queue.name for queue in wanted} & set(by_name), bindings)
    return found or [Finding("topology", f"{len(wanted)} queues, exchanges and bindings as declared")]


def _exchanges(there: list[Json]) -> Iterator[Finding]:
    from shared.bus import topology

    kinds = {one["name"]: (one["type"], one["durable"]) for one in there}
    wanted = dict.fromkeys(topology.TOPIC_EXCHANGES, "topic")
    wanted |= {topology.REPLIES: "direct", topology.MQTT_LOST: "fanout"}
    for name, kind in wanted.items():
        if name not in kinds:
            yield mendable("topology", f"the exchange {name} is missing", "broker")
        elif kinds[name] != (kind, True):
            words = f"the exchange {name} is no durable {kind} exchange"
            yield Finding("topology", words, "Stop, delete it in the management page, start again.")


def _lost_mqtt(policies: list[Json]) -> Iterator[Finding]:
    from deploy.broker import MQTT_POLICY
    from shared.bus import topology

    definitions = {one["name"]: one["definition"] for one in policies}
    if definitions.get(MQTT_POLICY) != {"alternate-exchange": topology.MQTT_LOST}:
        words = f"the policy {MQTT_POLICY} is not as it should be: what devices send to nobody is lost"
        yield mendable("topology", words, "broker")


def _declared(queue: Queue, there: Json | None) -> Iterator[Finding]:
    if there is None:
        yield mendable("topology", f"the queue {queue.name} is missing", "broker")
        return
    given = {name: value for name, value in there["arguments"].items() if name != "x-queue-type"}
    wanted = {name: value for name, value in queue.arguments.items() if name != "x-queue-type"}
    kind = queue.arguments.get("x-queue-type", "classic")
    if wrong := sorted(name for name in {*given, *wanted} if given.get(name) != wanted.get(name)):
        words = f"the queue {queue.name} was made with another {', '.join(wrong)}"
        yield Finding("topology", words, REMAKE.format(name=queue.name))
    if there.get("type", kind) != kind or not there["durable"]:
        words = f"the queue {queue.name} is no durable {kind} queue"
        yield Finding("topology", words, REMAKE.format(name=queue.name))


def _changed(name: str, policies: list[Json]) -> Iterator[Finding]:
    """By the one policy of each kind that counts: of those that fit, the one with the highest priority."""
    fitting = [
        one
        for one in policies
        if one["apply-to"] in ("all", "queues", "quorum_queues", "classic_queues")
        and re.search(one["pattern"], name)
    ]
    for one in sorted(fitting, key=lambda one: -int(one.get("priority", 0)))[:1]:
        if changed := sorted(set(one["definition"]) & set(MEANT)):
            words = f"a policy ({one['name']}) changes {name}: {', '.join(changed)}"
            yield Finding("topology", words, "Take that out of the policy.")


REMAKE = "When it is empty: delete {name} in the management page, then ./posthouse doctor --mend."


def _bindings(wanted: list[Queue], present: set[str], there: list[Json]) -> Iterator[Finding]:
    given = {
        (one["source"], one["routing_key"], one["destination"])
        for one in there
        if one["source"] and one["destination_type"] == "queue"
    }
    ours = {
        (exchange, key, queue.name)
        for queue in wanted
        if queue.name in present
        for exchange, key in queue.bindings
    }
    for exchange, key, name in sorted(ours - given):
        yield mendable("topology", f"the binding {key} of {exchange} to {name} is missing", "broker")
    for exchange, key, name in sorted(one for one in given - ours if one[2] in present):
        words = f"{name} is bound to {exchange} with {key}, which nothing of Posthouse asked for"
        yield Finding("topology", words, UNBIND)
    for one in there:
        if one["destination_type"] == "exchange":  # RabbitMQ lets the gateway make one, see docs/security.md
            words = f"the exchange {one['destination']} is bound to {one['source']} with {one['routing_key']}"
            yield Finding("topology", f"{words}, which nothing of Posthouse asked for", UNBIND)


UNBIND = "Unbind it in the management page unless you know why it is there."


async def rights(environment: Environment) -> list[Finding]:
    """Each account gets in with its password, may do what it should, and nothing else."""
    from deploy.broker import Management, accounts

    wanted = accounts()
    async with Management(environment) as management:
        users = {one["name"]: one for one in await management.call("GET", "/users")}
        given = await _permissions(management)
    found = []
    for name, one in wanted.items():
        told = list(_account(name, one, users.get(name), given.get(name)))
        found += told or await _gets_in(name, environment)
    return found or [Finding("rights", f"{len(wanted)} accounts may do what they should, and nothing else")]


async def _permissions(management: Management) -> dict[str, tuple[tuple[str, ...], dict[str, str]]]:
    """Of each user: configure, write and read, and what it may write to topic exchanges."""
    place = management.virtual_host
    plain = await management.call("GET", f"/vhosts/{place}/permissions")
    topics: dict[str, dict[str, str]] = {}
    for one in await management.call("GET", f"/vhosts/{place}/topic-permissions"):
        topics.setdefault(one["user"], {})[one["exchange"]] = one["write"]
    return {
        one["user"]: ((one["configure"], one["write"], one["read"]), topics.get(one["user"], {}))
        for one in plain
    }


def _account(
    name: str, wanted: Rights, user: Json | None, given: tuple[tuple[str, ...], dict[str, str]] | None
) -> Iterator[Finding]:
    if user is None:
        yield mendable("rights", f"the account {name} is missing", "broker")
        return
    if set(_tags(user)) != set(wanted.tags.split()):
        words = f"the account {name} has the tags {', '.join(_tags(user)) or 'none'}"
        yield mendable("rights", f"{words}, not {wanted.tags or 'none'}", "broker")
    plain, topics = given or ((), {})
    if plain != (wanted.configure, wanted.write, wanted.read):
        words = f"the account {name} has other rights than it should" if plain else f"{name} has no rights"
        yield mendable("rights", words, "broker")
    for exchange, pattern in wanted.topics.items():
        if topics.get(exchange) != pattern:
            words = f"the account {name} may publish other topics to {exchange} than it should"
            yield mendable("rights", words, "broker")


def _tags(user: Json) -> list[str]:
    """A list, or in older versions a text."""
    tags = user.get("tags", ())
    return [one for one in (tags.split(",") if isinstance(tags, str) else tags) if one]


async def _gets_in(name: str, environment: Environment) -> list[Finding]:
    import aio_pika
    from aiormq.exceptions import AMQPError

    from deploy.broker import password_of

    parts = urlsplit(environment["POSTHOUSE_AMQP_URL"])
    login = f"{name}:{quote(password_of(environment, name), safe='')}"
    url = parts._replace(netloc=f"{login}@{parts.netloc.rpartition('@')[2]}").geturl()
    try:
        async with await aio_pika.connect(url, timeout=SECONDS):
            return []
    except AMQPError as error:
        return [mendable("rights", f"the account {name} does not get in: {error}", "broker")]


async def states(environment: Environment) -> list[Finding]:
    """A leader, room, somebody who takes, and no dead letters."""
    import aio_pika

    from deploy.broker import Management, queues

    async with Management(environment) as management:
        known = await _settled(management)
    found = [*_leaderless(known), *_stuck(known)]
    without = {name for name, one in known.items() if not _has_leader(one)}
    # Asked of the queues themselves: the management API is some seconds late.
    async with await aio_pika.connect(environment["POSTHOUSE_AMQP_URL"], timeout=SECONDS) as connection:
        for queue in queues():
            if queue.name in known and queue.name not in without:
                found += _state(queue, await _asked(connection, queue.name))
    return found or [Finding("queues", "each has a leader and somebody who takes; no dead letters")]


async def _settled(management: Management) -> dict[str, Json]:
    """Queues as the management API knows them; just after a start it does not know all yet."""
    columns = "name,type,state,messages,messages_dlx,arguments"
    end = asyncio.get_running_loop().time() + LEADER_SECONDS
    while True:
        there = await management.call("GET", f"/queues/{management.virtual_host}?columns={columns}")
        is_known = all(_has_leader(one) for one in there)
        if is_known or asyncio.get_running_loop().time() > end:
            return {one["name"]: one for one in there}
        await asyncio.sleep(LOOK_SECONDS)


def _has_leader(one: Json) -> bool:
    """RabbitMQ 4 calls every quorum queue running; only its leader counts what is in it."""
    return bool(one.get("state")) and (one.get("type") != "quorum" or one.get("messages") is not None)


def _leaderless(known: Mapping[str, Json]) -> Iterator[Finding]:
    for name, one in known.items():
        if not _has_leader(one) and one.get("type") == "quorum":
            words = f"{name} has no leader and takes nothing: the broker was killed just after making it"
            yield mendable("queues", words, "leaders")


def _stuck(known: Mapping[str, Json]) -> Iterator[Finding]:
    for name, one in known.items():
        if waiting := one.get("messages_dlx"):
            target = one.get("arguments", {}).get("x-dead-letter-exchange", "")
            words = f"{waiting:,} messages of {name} are on their way to {target}, and no queue takes them"
            yield Finding("queues", words, "Mend the topology; they go on by themselves then.")


async def _asked(connection: Any, name: str) -> tuple[int, int] | None:
    """Messages and consumers of a queue; None when it is not there or does not answer."""
    from aiormq.exceptions import ChannelNotFoundEntity

    channel = await connection.channel()
    try:
        async with asyncio.timeout(ASK_SECONDS):
            found = (await channel.declare_queue(name, passive=True)).declaration_result
    except (ChannelNotFoundEntity, TimeoutError):
        return None
    await channel.close()
    return found.message_count or 0, found.consumer_count or 0


def _state(queue: Queue, state: tuple[int, int] | None) -> list[Finding]:
    name, most = queue.name, queue.arguments.get("x-max-length", 0)
    if state is None:
        return [Finding("queues", f"the queue {name} does not answer", "./posthouse logs rabbitmq")]
    messages, consumers = state
    if name.startswith("dead."):
        advice = "Each says why in its headers; the service's log has it too (frame_dead_lettered)."
        words = f"{name} holds {messages:,} messages that failed"
        return [Finding("queues", words, advice)] if messages else []
    if not consumers and not name.startswith("wait."):
        service = name.partition(".")[0]
        return [Finding("queues", f"nobody takes from the queue {name}", f"./posthouse logs {service}")]
    if most and messages > FULL * most:
        advice = "More processes of the service: ./posthouse up --scale"
        return [Finding("queues", f"{name} holds {messages:,} of at most {most:,} messages", advice)]
    return []
