"""What is safe to put right without asking: it makes what is missing, and takes nothing away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from deploy.cli.doctor.database import connected
from deploy.cli.doctor.finding import Environment, Mend
from deploy.cli.doctor.machine import readable
from deploy.identity import derive_password
from deploy.local import settings as configuration
from deploy.local.errors import Failure
from deploy.local.instance import ROOT, Instance
from deploy.local.rabbitmq import Rabbit, RabbitPorts

PORTS = ("amqp", "management", "prometheus", "mqtt", "distribution", "epmd")
_OLDEST = """
SELECT min(substring(c.relname FROM '[0-9]+$'))
  FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
 WHERE i.inhparent = to_regclass($1) AND c.relname ~ ('^' || $2 || '_[0-9]+$')
"""


@dataclass
class Mended:
    """What was done, and what could not be, in words."""

    done: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


async def mend(wanted: Iterable[Mend], environment: Environment) -> Mended:
    """Do each; one that fails keeps no other from being done."""
    mended = Mended()
    for name in sorted(wanted, key=list(MENDS).index):
        try:
            mended.done.append(await MENDS[name](environment))
        except Exception as error:
            mended.failed.append(f"{name}: {str(error) or type(error).__name__}")
    return mended


async def _broker(environment: Environment) -> str:
    from deploy.broker import prepare_broker

    await prepare_broker(environment)
    return "broker: exchanges, queues, bindings, accounts and rights as declared"


async def _leaders(environment: Environment) -> str:
    instance = Instance(configuration.load(ROOT, environment))
    rabbit = _own_broker(instance, environment)
    if rabbit is None:
        raise Failure(
            "the broker is not ours. On its machine, for each such queue: rabbitmqctl eval "
            """'ra:trigger_election({list_to_atom("%2F_QUEUE"), node()}).'"""
        )
    answer = await asyncio.to_thread(rabbit.elect)
    if "noproc" in answer:
        raise Failure(
            "a queue was never finished: delete it in RabbitMQ's management page, nothing is in it; "
            "then ./posthouse doctor --mend"
        )
    return f"leaders: elected ({answer})"


def _own_broker(instance: Instance, environment: Environment) -> Rabbit | None:
    """The broker of this instance, where it listens now; None when settings name another one."""
    try:
        ports = json.loads((instance.run / "ports.json").read_text())
        kept = RabbitPorts(**{name: ports[name] for name in PORTS})
    except (OSError, ValueError, KeyError):
        return None
    rabbit = Rabbit(instance, kept, derive_password(environment["POSTHOUSE_SECRET_KEY"], "amqp:admin"))
    return rabbit if rabbit.amqp_url == environment["POSTHOUSE_AMQP_URL"] else None


async def _database(environment: Environment) -> str:
    from deploy.database import prepare_database, services
    from shared.db.migrate import grant_again

    await prepare_database(environment)
    await grant_again(environment["POSTHOUSE_DATABASE_URL"], services())
    return "database: roles, passwords and rights as declared"


async def _partitions(environment: Environment) -> str:
    """By the functions the services call; nothing is dropped, however old."""
    from deploy.database import services

    made = 0
    async with connected(environment["POSTHOUSE_DATABASE_URL"]) as connection:

        async def oldest(table: str, prefix: str, form: str) -> datetime:
            text = await connection.fetchval(_OLDEST, table, prefix)
            return datetime.strptime(text, form).replace(tzinfo=UTC) if text else datetime.now(UTC)

        for name in services():
            since = datetime.now(UTC) - await oldest(f"{name}.inbox", "inbox", "%Y%m%d%H")
            hours = max(1, int(since.total_seconds() // 3600) + 1)
            made += await connection.fetchval(f"SELECT {name}.keep_inbox($1, 6)", hours)
        days = (datetime.now(UTC) - await oldest("worker.log_line", "log_line", "%Y%m%d")).days + 1
        made += await connection.fetchval("SELECT worker.keep_log($1, 7)", max(1, days))
        made += max(0, await connection.fetchval("SELECT ingest.make_partitions(4)"))
    return f"partitions: {made} made"


async def _files(environment: Environment) -> str:
    files: list[Path] = readable(environment)
    for file in files:
        file.chmod(0o600)
    return f"files: {', '.join(map(str, files))} readable by you alone"


MENDS: dict[Mend, Callable[[Environment], Awaitable[str]]] = {
    "database": _database,
    "partitions": _partitions,
    "broker": _broker,
    "leaders": _leaders,
    "files": _files,
}
"""In this order: what others stand on first."""
