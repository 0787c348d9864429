"""Other ways to build the same, one readable file each, tuned as their own documentation advises."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple


class Peer(NamedTuple):
    """One peer: a program whose roles are processes; each prints `ready` when it serves, SIGTERM stops it.

    Broker and database come from BENCH_AMQP_URL and BENCH_DATABASE_URL; a peer declares its own queues and
    tables. The role `web` is started with `--port` and serves HTTP on loopback, the others serve no port.
    """

    name: str
    label: str
    runtime: Literal["python", "nameko", "node"]
    file: str
    roles: tuple[str, ...]
    routes: tuple[str, ...]
    """`METHOD /path` of each route; what is sent to them stands in the file."""
    arguments: tuple[str, ...] = ()
    """Further arguments of every role."""


_ALL = (
    Peer(
        "limit",
        "bare aiohttp 3.14.5 + msgspec 0.22.0 + uvloop 0.23.0, no queue, no database",
        "python",
        "limit.py",
        ("web",),
        ("POST /", "GET /"),
    ),
    Peer(
        "fastapi_insert",
        "FastAPI 0.163.2 + Uvicorn 0.54.0 (uvloop, httptools) + asyncpg 0.32.0",
        "python",
        "fastapi_insert.py",
        ("web",),
        ("POST /readings", "POST /datasets"),
    ),
    Peer(
        "express_pg",
        "Express 5.3.0 + pg 8.23.1 on Node 24",
        "node",
        "express_pg.mjs",
        ("web",),
        ("POST /readings",),
    ),
    Peer(
        "copy_bulk",
        "aiohttp 3.14.5 + msgspec 0.22.0 + asyncpg 0.32.0 COPY",
        "python",
        "copy_bulk.py",
        ("web",),
        ("POST /readings",),
    ),
    Peer(
        "aio_pika_rpc",
        "aio-pika 10.2.1 with a reply queue, behind aiohttp 3.14.5",
        "python",
        "aio_pika_rpc.py",
        ("service", "web"),
        ("POST /",),
    ),
    Peer(
        "express_amqplib",
        "Express 5.3.0 + amqplib 2.3.1 on Node 24",
        "node",
        "express_amqplib.mjs",
        ("service", "web"),
        ("POST /",),
    ),
    Peer(
        "express_amqplib_durable",
        "Express 5.3.0 + amqplib 2.3.1 on Node 24, persistent, confirmed, quorum queue",
        "node",
        "express_amqplib.mjs",
        ("service", "web"),
        ("POST /",),
        ("--durable",),
    ),
    Peer(
        "faststream",
        "FastStream 0.7.8 (reply_to), behind aiohttp 3.14.5",
        "python",
        "faststream_rpc.py",
        ("service", "web"),
        ("POST /",),
    ),
    Peer(
        "celery_rpc",
        "Celery 5.7.0 (rpc://, solo pool), behind aiohttp 3.14.5",
        "python",
        "celery_rpc.py",
        ("service", "web"),
        ("POST /",),
    ),
    Peer(
        "nameko_rpc",
        "Nameko 2.14.1 with its own HTTP entrypoint",
        "nameko",
        "nameko_rpc.py",
        ("service", "web"),
        ("POST /",),
    ),
)

PEERS: Mapping[str, Peer] = {peer.name: peer for peer in _ALL}
