"""Start order, signals, drain and stop order of every service."""

from __future__ import annotations

import asyncio
import ctypes
import faulthandler
import gc
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

import msgspec
import structlog
from aiohttp.web import AppRunner
from prometheus_client import CollectorRegistry, Gauge

from shared import http, logs, tasks
from shared.bus import codec
from shared.bus.about import Identity
from shared.bus.codec import Frame
from shared.bus.ids import uuid7
from shared.bus.inbox import PostgresInbox
from shared.bus.link import NotPublished, OnDelivery, Outgoing, PublishUnknown
from shared.bus.rabbit import RabbitLink
from shared.bus.requester import BusRequester
from shared.bus.routes import Call, Routes
from shared.bus.service import Limits, Service
from shared.bus.shipping import Shipper
from shared.bus.topology import COMMANDS, SERVICES
from shared.contracts.base import Command, Principal
from shared.db import Database
from shared.settings import BadSettings, note

log = structlog.get_logger()

PARTITIONS_EVERY_SECONDS = 600.0
AGAIN_SECONDS = 1.0
READY_FOR_SECONDS = 1.0
REPORT_SECONDS = 5.0
# Beyond the longest wait for running work: what is left then is a mistake of ours.
END_SECONDS, TELL_SECONDS = 10.0, 0.5


class ServiceSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What every process needs to know; one field per environment variable."""

    amqp_url: Annotated[str, note("RabbitMQ, with this service's own account", secret=True)]
    database_url: Annotated[str, note("PostgreSQL, with this service's own role", secret=True)] = ""
    redis_url: Annotated[str, note("Redis or Valkey", secret=True)] = ""
    secret_key: Annotated[str, note("32 bytes or more in base64url, the key of all secrets", secret=True)] = (
        ""
    )
    ops_address: Annotated[str, note("host:port of /healthz, /readyz and /metrics; empty: none")] = ""
    inbox_hours: Annotated[int, note("hours a repeat of a command is known", ge=1, le=720)] = 24
    stop_seconds: Annotated[float, note("longest wait for running work when stopping", ge=0)] = 10.0
    pool_size: Annotated[int, note("database connections of this process", ge=2, le=100)] = 12
    log_level: Annotated[str, note("debug, info, warning or error")] = "info"
    log_query_sample: Annotated[
        float, note("share of the queries that leave a line in the log; of commands all do", ge=0, le=1)
    ] = 0.01
    commit: Annotated[str, note("the commit that runs, shown by /healthz")] = ""


# New containers until the youngest are looked through. The usual 700 come together in one batch of frames:
# a tenth of the time of a busy process went into looking for cycles that are not there.
COLLECT_AFTER = 10_000


def _collect_seldom() -> None:
    """What is here at the start stays: leave it out of every later search for garbage."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, 10, 10)


M_MMAP_THRESHOLD = -3  # of glibc's mallopt(3)
LARGE_BYTES = 128 << 10


def _give_back_large_blocks() -> None:
    """What was large goes back to the system when it is freed.

    Left alone, glibc learns to keep it: after twenty answers of 4 MB at once a gateway held 200 MB for ever.
    """
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)


def run_service(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a process to its end; wrong settings are said in one line."""
    _give_back_large_blocks()
    try:
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())
    except BadSettings as error:
        raise SystemExit(f"settings: {error}") from error


def stop_event(seconds: float) -> asyncio.Event:
    """Set by the first SIGTERM or SIGINT; a second one ends the process at once, and so do `seconds` more.

    What still runs then is said before: the tasks in the log, where the threads are on stderr.
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop() -> None:
        if stopping.is_set():
            os._exit(1)
        stopping.set()
        loop.call_later(max(seconds - TELL_SECONDS, 0), _tell_what_runs, loop)
        faulthandler.dump_traceback_later(seconds, exit=True)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    return stopping


def _tell_what_runs(loop: asyncio.AbstractEventLoop) -> None:
    found = [f"{task.get_coro()!r} {task.get_stack(limit=1)}" for task in asyncio.all_tasks(loop)]
    log.error("not_ended", tasks=found)


@asynccontextmanager
async def running(settings: ServiceSettings) -> AsyncIterator[Running]:
    """The life of a service: what it opens is closed in the right order."""
    service = Running(settings)
    try:
        yield service
    finally:
        await service.close()


@asynccontextmanager
async def asking(
    settings: ServiceSettings, account: str, *, drain_seconds: float, request_queues: bool = False
) -> AsyncIterator[Asking]:
    """The life of a process that asks services, owns no table, and needs `drain_seconds` to stop."""
    bus = Asking(settings, account, drain_seconds, request_queues=request_queues)
    try:
        yield bus
    finally:
        await bus.close()


class Asking:
    """The bus as a gateway needs it: a requester, live events, and an eye on the queues it asks."""

    def __init__(
        self, settings: ServiceSettings, account: str, drain_seconds: float, *, request_queues: bool
    ) -> None:
        logs.configure(account, settings.log_level)
        self.stopping = stop_event(drain_seconds + END_SECONDS)
        self.figures = http.registry()
        self.link = RabbitLink(settings.amqp_url, account)
        self.requester = BusRequester(self.link, request_queues=request_queues)
        self._watch_replies()
        self._settings = settings
        self._account = account
        self._shipper = Shipper(self.link, account, registry=self.figures)
        self._tasks: list[asyncio.Task[Any]] = []
        self._ops: AppRunner | None = None

    async def start(
        self, hears: tuple[str, ...], on_delivery: OnDelivery, on_lost: Callable[[], None]
    ) -> None:
        """Connect; `on_lost` is called whenever live events may have been missed."""
        await self.link.open_replies(self.requester.on_reply)
        await self.link.hear(hears, on_delivery, on_lost)
        self.link.start()
        _collect_seldom()
        logs.on_ship(self._shipper.add)
        queues = tuple(name for service in SERVICES for name in (service, f"{service}.queries"))
        self.spawn(self._shipper.run())
        self.spawn(self.requester.watch(queues))
        self.spawn(self._report(queues))

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Run beside, until closed."""
        self._tasks.append(asyncio.create_task(coroutine))

    def _watch_replies(self) -> None:
        waiting = Gauge("posthouse_calls_waiting", "Calls that wait for a reply", registry=self.figures)
        waiting.set_function(self.requester.waiting)
        late = Gauge("posthouse_late_replies", "Replies nobody waited for any more", registry=self.figures)
        late.set_function(lambda: self.requester.late_replies)

    async def serve_ops(self, missing: http.Missing) -> None:
        """/healthz, /readyz and /metrics on a port of this process alone, when the settings name one."""
        if self._settings.ops_address:
            app = http.ops_app(self._account, self._settings.commit, missing, self.figures)
            self._ops = await http.serve_ops(app, self._settings.ops_address)

    async def _report(self, queues: tuple[str, ...]) -> None:
        """Compare the consumers there should be with those there are, and say when that changes."""
        waiting = Gauge("posthouse_queue_messages", "Messages ready", ["queue"], registry=self.figures)
        taking = Gauge("posthouse_queue_consumers", "Consumers", ["queue"], registry=self.figures)
        unattended: set[str] = set()
        while True:
            await asyncio.sleep(REPORT_SECONDS)
            for name, depth in self.requester.depths.items():
                waiting.labels(name).set(depth.messages)
                taking.labels(name).set(depth.consumers)
            now = {name for name in queues if name in self.requester.depths}
            now = {name for name in now if not self.requester.depths[name].consumers}
            if now != unattended:
                log.warning("consumers_missing" if now else "consumers_present", queues=sorted(now))
                unattended = now

    async def close(self) -> None:
        """Close what was opened, the last first."""
        self._shipper.stop()
        logs.on_ship(None)
        await tasks.end(self._tasks)
        if self._ops is not None:
            await self._ops.cleanup()
        await self.link.close()


class Running:
    """One service process, from its settings to its end."""

    def __init__(self, settings: ServiceSettings) -> None:
        self.settings = settings
        self._timers: list[tuple[float, Command[Any]]] = []
        self._tasks: list[asyncio.Task[Any]] = []
        self._closing: list[Callable[[], Awaitable[Any]]] = []
        self._ready_at = 0.0
        self._ready: dict[str, str] = {"service": "starting"}

    def every(self, seconds: float, command: Command[Any]) -> None:
        """Send a command to oneself now and every `seconds`: every write starts from a message."""
        self._timers.append((seconds, command))

    async def serve(
        self,
        routes: Routes,
        make_deps: Callable[[Call], Any],
        *,
        further_queues: tuple[str, ...] = (),
    ) -> None:
        """Take from the queues of `routes.service` until told to stop, then drain."""
        settings = self.settings
        logs.configure(routes.service, settings.log_level)
        stopping = stop_event(settings.stop_seconds + END_SECONDS)
        figures = http.registry()
        shipper = await self._connect(routes.service, figures)
        inbox = PostgresInbox(self._database)
        if not await self._open_database(stopping, inbox):
            return
        limits = Limits(inbox_hours=settings.inbox_hours)
        self._service = Service(
            routes,
            self._link,
            inbox,
            make_deps,
            limits=limits,
            registry=figures,
            tell=shipper.ended,
            identity=Identity(version=http.VERSION, commit=settings.commit),
        )
        self._spawn(self._keep_partitions(inbox))
        await self._service.start(*further_queues)
        for seconds, command in self._timers:
            self._spawn(self._send_every(routes.service, seconds, command))
        self._ready = {}
        _collect_seldom()
        log.info("serving", service=routes.service)
        await stopping.wait()
        self._ready = {"service": "stopping"}
        log.info("stopping", **self._service.counts())
        await self._service.stop(settings.stop_seconds)
        shipper.stop()

    async def _connect(self, service: str, figures: CollectorRegistry) -> Shipper:
        """Broker and database, figures of both, and the log on its way; none of it waits for a server."""
        settings = self.settings
        self._link = RabbitLink(settings.amqp_url, service)
        self._database = Database(
            settings.database_url, size=settings.pool_size, application_name=f"posthouse {service}"
        )
        self._measure_pool(figures)
        if settings.ops_address:
            app = http.ops_app(service, settings.commit, self._missing, figures)
            runner = await http.serve_ops(app, settings.ops_address)
            self._closing.append(runner.cleanup)
        self._link.start()
        self._closing.append(self._link.close)
        self._closing.append(self._database.close)
        sample = settings.log_query_sample
        shipper = Shipper(self._link, service, query_sample=sample, registry=figures)
        logs.on_ship(shipper.add)
        self._spawn(shipper.run())
        return shipper

    async def close(self) -> None:
        """Close what was opened, the last first."""
        await tasks.end(self._tasks)
        logs.on_ship(None)
        for close in reversed(self._closing):
            with suppress(Exception):
                await close()

    def _measure_pool(self, figures: CollectorRegistry) -> None:
        pool = Gauge(
            "posthouse_database_connections", "Connections to PostgreSQL", ["state"], registry=figures
        )
        for state in ("busy", "idle", "most"):
            pool.labels(state).set_function(partial(self._database.connections, state))

    async def _open_database(self, stopping: asyncio.Event, inbox: PostgresInbox) -> bool:
        while not stopping.is_set():
            try:
                await self._database.open()
                await inbox.keep_partitions(self.settings.inbox_hours)
                return True
            except Exception as error:
                if not inbox.away(error):
                    raise
                self._ready = {"database": str(error)}
                log.warning("database_away", error=str(error))
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), AGAIN_SECONDS)
        return False

    async def _missing(self) -> Mapping[str, str]:
        """What stands between this process and its work."""
        missing = dict(self._ready)
        if not self._link.up:
            missing["broker"] = ", ".join(self._link.missing) or self._link.trouble or "connecting"
        now = asyncio.get_running_loop().time()
        if not missing and now - self._ready_at > READY_FOR_SECONDS:
            try:
                async with asyncio.timeout(2):
                    await self._database.ping()
                self._ready_at = now
            except Exception as error:
                missing["database"] = str(error) or type(error).__name__
        return missing

    async def _keep_partitions(self, inbox: PostgresInbox) -> None:
        while True:
            await asyncio.sleep(PARTITIONS_EVERY_SECONDS)
            try:
                await inbox.keep_partitions(self.settings.inbox_hours)
            except Exception as error:
                log.warning("partitions_not_kept", error=str(error))

    async def _send_every(self, service: str, seconds: float, command: Command[Any]) -> None:
        while True:
            now = int(datetime.now(UTC).timestamp() * 1000)
            frame = Frame(
                id=uuid7(now),
                topic=command.topic,
                kind="command",
                body=codec.body_of(command),
                principal=Principal(kind="service", id=service),
                born=now,
            )
            try:
                await self._link.publish(Outgoing(COMMANDS, command.topic, codec.join([codec.encode(frame)])))
            except (NotPublished, PublishUnknown) as error:
                log.warning("timer_not_sent", topic=command.topic, error=str(error))
                await asyncio.sleep(AGAIN_SECONDS)
                continue
            await asyncio.sleep(seconds)

    def _spawn(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._tasks.append(asyncio.create_task(coroutine))
