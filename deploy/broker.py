"""The broker as this version needs it: accounts, rights, exchanges, queues, bindings; idempotent."""

from __future__ import annotations

import asyncio
import importlib
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import aio_pika
import aiohttp
from aio_pika.abc import AbstractChannel
from aiormq.exceptions import AMQPError, ChannelPreconditionFailed

from deploy.identity import derive_password
from shared.bus import topology
from shared.bus.service import heard_topics
from shared.bus.topology import Queue, Rights
from shared.contracts.registry import commands_of

NEVER = "(?!)"  # as a right: matches not even nothing
MQTT_POLICY = "posthouse-mqtt"
NEEDED = ("POSTHOUSE_AMQP_URL", "POSTHOUSE_MANAGEMENT_URL", "POSTHOUSE_SECRET_KEY")


class BrokerNotPrepared(Exception):
    """The broker could not be made ready; the message says what to do."""


@dataclass(frozen=True)
class Account:
    """A broker account for a service written elsewhere: how to connect and what is its own."""

    name: str
    url: str
    password: str
    queues: tuple[str, ...]
    rights: Rights


async def prepare_broker(environment: Mapping[str, str]) -> None:
    """Make accounts, rights and topology; raises BrokerNotPrepared."""
    missing = [name for name in NEEDED if not environment.get(name)]
    if missing:
        raise BrokerNotPrepared(f"{' and '.join(missing)} must be set to prepare RabbitMQ")
    try:
        async with Management(environment) as management:
            await management.wait()
            await asyncio.gather(
                *(
                    management.account(name, password_of(environment, name), rights)
                    for name, rights in accounts().items()
                )
            )
            await declare(environment["POSTHOUSE_AMQP_URL"], queues())
            await management.keep_unroutable_mqtt()
    except (aiohttp.ClientError, AMQPError, OSError) as error:
        raise BrokerNotPrepared(f"RabbitMQ: {type(error).__name__}: {error}") from error


def accounts() -> dict[str, Rights]:
    """Every broker account of ours and what it may do."""
    rights = {
        service: topology.service_rights(service, commands_of(service)) for service in topology.SERVICES
    }
    return {"gateway": topology.gateway_rights(), topology.MONITOR: topology.monitor_rights(), **rights}


def queues() -> list[Queue]:
    """Every queue there is."""
    found = topology.shared_queues()
    for service in topology.SERVICES:
        routes = importlib.import_module(f"services.{service}.handlers").routes
        found += topology.service_queues(service, heard_topics(routes), logs=service == "worker")
    return found


def password_of(environment: Mapping[str, str], account: str) -> str:
    """The derived password of an account."""
    return derive_password(environment["POSTHOUSE_SECRET_KEY"], f"amqp:{account}")


async def declare(amqp_url: str, wanted: Iterable[Queue]) -> None:
    """Declare exchanges, queues and bindings; a queue that is there with other arguments is an error."""
    connection = await aio_pika.connect(amqp_url, timeout=10)
    async with connection:
        channel = await connection.channel()
        for name in topology.TOPIC_EXCHANGES:
            await channel.declare_exchange(name, "topic", durable=True)
        await channel.declare_exchange(topology.REPLIES, "direct", durable=True)
        await channel.declare_exchange(topology.MQTT_LOST, "fanout", durable=True)
        for queue in wanted:
            await _declare(channel, queue)


async def _declare(channel: AbstractChannel, queue: Queue) -> None:
    try:
        made = await channel.declare_queue(queue.name, durable=True, arguments=queue.arguments)
    except ChannelPreconditionFailed as error:
        raise BrokerNotPrepared(
            f"the queue {queue.name} has other arguments ({error}): empty it, delete it, start again"
        ) from error
    for exchange, pattern in queue.bindings:
        await made.bind(exchange, pattern)


async def add_account(
    environment: Mapping[str, str], name: str, handles: list[str], publishes: list[str]
) -> Account:
    """An account and queues for a service written elsewhere.

    `handles` are topics of its own (`<name>.*`) that it takes, `publishes` events it may announce, which
    must be its own too. Raises ValueError for a topic that is not.
    """
    foreign = [topic for topic in (*handles, *publishes) if not topic.startswith(f"{name}.")]
    if foreign or name in accounts() or not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", name):
        raise ValueError(f"{name} cannot own {', '.join(foreign) or 'its name'}")
    pattern = "|".join(topic.replace(".", r"\.") for topic in publishes)
    rights = topology.service_rights(name, publishes=rf"^({pattern})\z" if pattern else NEVER)
    password = secrets.token_urlsafe(24)
    made = topology.service_queues(name)
    async with Management(environment) as management:
        await management.account(name, password, rights)
    await declare(environment["POSTHOUSE_AMQP_URL"], made)
    admin = urlsplit(environment["POSTHOUSE_AMQP_URL"])
    url = admin._replace(netloc=f"{name}:{password}@{admin.hostname}:{admin.port or 5672}").geturl()
    return Account(name, url, password, tuple(queue.name for queue in made), rights)


async def remove_account(environment: Mapping[str, str], name: str) -> None:
    """End an account; its queues stay with what is in them."""
    if name in accounts():
        raise ValueError(f"{name} is an account of Posthouse itself")
    async with Management(environment) as management:
        await management.remove(name)


class Management:
    """RabbitMQ's management API with an administrator's account."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        parts = urlsplit(environment["POSTHOUSE_MANAGEMENT_URL"])
        path = urlsplit(environment["POSTHOUSE_AMQP_URL"]).path
        self._vhost = self.virtual_host = quote(unquote(path[1:]) or "/", safe="")
        self._base = f"{parts.scheme}://{parts.hostname}:{parts.port or 15672}/api"
        login = unquote(parts.username or ""), unquote(parts.password or "")
        self._headers = {"Authorization": aiohttp.encode_basic_auth(*login)}

    async def __aenter__(self) -> Management:
        self._session = aiohttp.ClientSession(headers=self._headers, timeout=aiohttp.ClientTimeout(total=10))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def wait(self, seconds: float = 30.0) -> None:
        """Return when it answers: it starts a little later than the broker itself."""
        async with asyncio.timeout(seconds):
            while True:
                try:
                    await self.call("GET", "/overview")
                    return
                except aiohttp.ClientConnectionError:
                    await asyncio.sleep(0.1)

    async def account(self, name: str, password: str, rights: Rights) -> None:
        """Make or update an account, and exactly these rights."""
        await self.call("PUT", f"/users/{name}", {"password": password, "tags": rights.tags})
        permission = {"configure": rights.configure, "write": rights.write, "read": rights.read}
        await self.call("PUT", f"/permissions/{self._vhost}/{name}", permission)
        for exchange, pattern in rights.topics.items():
            topic = {"exchange": exchange, "write": pattern, "read": ".*"}
            await self.call("PUT", f"/topic-permissions/{self._vhost}/{name}", topic)

    async def keep_unroutable_mqtt(self) -> None:
        """MQTT acknowledges what no queue takes; the alternate exchange keeps it (measured on 3.10.8)."""
        definition = {"alternate-exchange": topology.MQTT_LOST}
        policy = {"pattern": r"^amq\.topic$", "definition": definition, "apply-to": "exchanges"}
        await self.call("PUT", f"/policies/{self._vhost}/{MQTT_POLICY}", policy)

    async def names(self) -> list[str]:
        """Every account there is."""
        return sorted(user["name"] for user in await self.call("GET", "/users"))

    async def remove(self, name: str) -> None:
        """End an account and its connections."""
        await self.call("DELETE", f"/users/{name}")

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        """One request; raises aiohttp.ClientResponseError."""
        async with self._session.request(method, self._base + path, json=body) as response:
            response.raise_for_status()
            return await response.json() if response.content_length != 0 and method == "GET" else None
