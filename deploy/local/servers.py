"""The three servers of an instance: our own, or those that settings name."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

from deploy.identity import derive_password
from deploy.local import python_env, rabbitmq
from deploy.local.console import Console
from deploy.local.debian import Apt
from deploy.local.files import locked
from deploy.local.instance import Instance
from deploy.local.ports import Ports
from deploy.local.postgres import Postgres
from deploy.local.program import Program
from deploy.local.rabbitmq import Rabbit, RabbitPorts
from deploy.local.reaching import host_of
from deploy.local.services import Addresses
from deploy.local.valkey import Valkey

NOTHING: Mapping[str, Callable[[Apt], str]] = MappingProxyType({})
SERVERS = frozenset({"epmd", "rabbitmq", "postgres", "redis"})
STOP_ORDER: tuple[Callable[[str], bool], ...] = (
    lambda name: name.partition("-")[0] == "gateway",
    lambda name: name not in SERVERS,
    lambda name: name != "epmd",
    lambda name: True,
)
"""The door first, then those behind it, then what they stand on."""


def install(
    instance: Instance,
    console: Console,
    *,
    dev: bool = False,
    servers: bool = True,
    more: Mapping[str, Callable[[Apt], str]] = NOTHING,
) -> None:
    """Python's libraries, the server programs and what `more` installs, all at once; starts of one checkout
    wait in turn.
    """
    instance.make_directories()
    own_broker = servers and not instance.settings.get("POSTHOUSE_AMQP_URL")
    with locked(instance.root / ".local" / "install.lock"), ThreadPoolExecutor() as pool:
        instance.servers.mkdir(parents=True, exist_ok=True)
        apt = Apt(instance.servers / "apt", instance.logs / "apt.log")
        steps: list[tuple[str, Callable[[], str]]] = [
            ("Python libraries", lambda: python_env.ensure(instance, apt, dev=dev))
        ]
        if own_broker:
            steps.append(("RabbitMQ, Erlang", lambda: rabbitmq.ensure(instance, apt)))
        steps += [(name, partial(work, apt)) for name, work in more.items()]
        for running in [pool.submit(_installed, console, name, work) for name, work in steps]:
            running.result()


def _installed(console: Console, name: str, work: Callable[[], str]) -> None:
    with console.step(name) as step:
        step.words = work()


@dataclass
class Servers:
    """Which servers this instance runs itself, and the addresses of all."""

    instance: Instance
    ports: Ports
    key: str
    safe: bool = True

    def __post_init__(self) -> None:
        postgres, valkey, rabbit = self._postgres(), self._valkey(), self._rabbit()
        self.postgres = postgres if self._ours("POSTHOUSE_DATABASE_URL", postgres.url) else None
        self.valkey = valkey if self._ours("POSTHOUSE_REDIS_URL", valkey.url) else None
        self.rabbit = rabbit if self._ours("POSTHOUSE_AMQP_URL", rabbit.amqp_url) else None

    def _ours(self, name: str, url: str) -> bool:
        # Our own address is in the environment of a shell that has read addresses.env.
        return self.instance.settings.get(name) in ("", url)

    def _postgres(self) -> Postgres:
        password = derive_password(self.key, "postgres:admin")
        return Postgres(self.instance, self.ports.get("postgres"), password, self.safe)

    def _valkey(self) -> Valkey:
        return Valkey(self.instance, self.ports.get("redis"), derive_password(self.key, "redis"), self.safe)

    def _rabbit(self) -> Rabbit:
        get, port = self.instance.settings.get, self.ports.get
        host = host_of(self.instance.settings, "POSTHOUSE_MQTT_HOST")
        ports = RabbitPorts(
            amqp=port("amqp"),
            management=port("management"),
            prometheus=port("prometheus"),
            mqtt=port("mqtt", get("POSTHOUSE_MQTT_PORT"), host=host),
            distribution=port("distribution"),
            epmd=port("epmd"),
            mqtt_host=host,
        )
        return Rabbit(self.instance, ports, derive_password(self.key, "amqp:admin"), self.safe)

    @property
    def addresses(self) -> Addresses:
        """Administrators' addresses, our own or from settings."""
        get, rabbit = self.instance.settings.get, self.rabbit
        return Addresses(
            amqp=rabbit.amqp_url if rabbit else get("POSTHOUSE_AMQP_URL"),
            management=rabbit.management_url if rabbit else get("POSTHOUSE_MANAGEMENT_URL"),
            mqtt=rabbit.mqtt_url if rabbit else get("POSTHOUSE_MQTT_URL"),
            database=self.postgres.url if self.postgres else get("POSTHOUSE_DATABASE_URL"),
            redis=self.valkey.url if self.valkey else get("POSTHOUSE_REDIS_URL"),
        )

    async def programs(self) -> list[Program]:
        """Prepare the data of each that is ours, all at once; epmd is before the broker."""
        self.instance.data.mkdir(parents=True, exist_ok=True)
        work: list[Callable[[], list[Program]]] = []
        if rabbit := self.rabbit:
            work.append(lambda: list(rabbit.prepare()))
        if postgres := self.postgres:
            work.append(lambda: [postgres.prepare()])
        if valkey := self.valkey:
            work.append(lambda: [valkey.prepare()])
        groups = await asyncio.gather(*(asyncio.to_thread(one) for one in work))
        return [program for group in groups for program in group]
