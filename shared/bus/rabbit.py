"""RabbitMQ behind the bus: connections and queues through aio-pika, messages past it (`shared.bus.amqp`)."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast

import aio_pika
import structlog
from aio_pika.abc import AbstractConnection
from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel
from aiormq.connection import TransportFactory
from aiormq.exceptions import AMQPConnectionError, AMQPError, ChannelNotFoundEntity
from yarl import URL

from shared import tasks
from shared.bus.amqp import Publisher, Taker, Tap
from shared.bus.link import LinkDown, OnDelivery, OnLost, Outgoing, Settled, published
from shared.bus.topology import EVENTS, LOGS, REPLIES

log = structlog.get_logger()

HEARTBEAT_SECONDS = 5
CONNECT_SECONDS = 5.0
PUBLISH_SECONDS = 2.0
SETUP_SECONDS = 5.0
AGAIN_SECONDS = 0.5
REPLY_MESSAGES = 100_000
BROKEN = (AMQPError, ConnectionError, OSError, RuntimeError, asyncio.TimeoutError)


class RabbitLink:
    """Two connections under one account, one to publish and one to consume, kept up until closed.

    Every trouble is answered the same way: the side it happened on is taken down and made anew, private
    queues under fresh names. Nothing published is repeated here: the caller knows what may be.
    """

    def __init__(self, url: str, account: str, *, publish_seconds: float = PUBLISH_SECONDS) -> None:
        self.account = account
        self._url = url
        self._publish_seconds = publish_seconds
        self._publishing: Channel | None = None
        self._publisher: Publisher | None = None
        self._logging: Publisher | None = None
        self._consuming: AbstractConnection | None = None
        self._subscriptions: list[RabbitSubscription] = []
        self._replies: OnDelivery | None = None
        self._reply_address = ""
        self._live: list[tuple[tuple[str, ...], OnDelivery, Callable[[], None]]] = []
        self._private: dict[str, Callable[[], None]] = {}
        self._private_channel: Channel | None = None
        self._private_taker: Taker | None = None
        self._takers: list[Taker] = []
        self._private_prefetch = 0
        self._private_lock = asyncio.Lock()
        self._look_channel: Channel | None = None
        self._callbacks: list[Callable[[], None]] = []
        self._sides: list[asyncio.Task[None]] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self.trouble = "not connected yet"

    # -- life ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to connect, and go on until closed."""
        name = f"posthouse {self.account}"
        self._sides = [
            asyncio.create_task(self._keep(f"{name} publishing", self._publish_side)),
            asyncio.create_task(self._keep(f"{name} consuming", self._consume_side)),
        ]

    async def close(self) -> None:
        """Close both connections; what was settled is told before."""
        for taker in self._takers:
            taker.flush()
        await tasks.end(self._sides)
        self._sides = []

    @property
    def up(self) -> bool:
        """Whether both connections work and every queue is taken from."""
        return (
            self._publisher is not None
            and not self._publisher.closed
            and self._consuming is not None
            and all(subscription.attached for subscription in self._subscriptions)
        )

    @property
    def can_send(self) -> bool:
        """As `Link.can_send`."""
        return self._logging is not None

    @property
    def missing(self) -> list[str]:
        """Queues this link should take from and does not."""
        return [each.queue for each in self._subscriptions if not each.attached]

    @property
    def reply_address(self) -> str:
        """The name of the reply queue, fresh at every connect."""
        return self._reply_address

    def on_up(self, callback: Callable[[], None]) -> None:
        """Call back whenever both connections are up again."""
        self._callbacks.append(callback)

    async def _keep(self, name: str, side: Callable[[AbstractConnection], Coroutine[Any, Any, None]]) -> None:
        while True:
            connection: AbstractConnection | None = None
            try:
                with _said_plainly():
                    connection = await aio_pika.connect(
                        self._url,
                        timeout=CONNECT_SECONDS,
                        heartbeat=HEARTBEAT_SECONDS,
                        client_properties={"connection_name": name},
                        connection_class=TappedConnection,
                    )
                    await side(connection)
            except Exception as error:  # whatever it is: nobody else would connect again
                self.trouble = f"{type(error).__name__}: {error}"
                log.warning("broker_connection_lost", connection=name, error=self.trouble)
            finally:
                if connection is not None:
                    with suppress(Exception), _said_plainly():
                        async with asyncio.timeout(1):
                            await connection.close()
            await asyncio.sleep(AGAIN_SECONDS * (0.5 + random.random()))

    def _tell_up(self) -> None:
        if self._publishing is not None and self._consuming is not None:
            self.trouble = ""
            for callback in self._callbacks:
                callback()

    # -- publishing ------------------------------------------------------------------------------------

    async def _publish_side(self, connection: AbstractConnection) -> None:
        channel = await _open(connection, confirms=True)
        logging = await _open(connection, confirms=False)
        self._publishing = channel
        self._publisher = self._made_publisher(connection, channel)
        self._logging = self._made_publisher(connection, logging)
        try:
            self._tell_up()
            while await _still_open(channel, logging, seconds=self._publish_seconds / 10):
                self._publisher.expire()
        finally:
            for publisher in (self._publisher, self._logging):
                publisher.end("the connection was closed")
            self._publishing = self._publisher = self._logging = None

    def _made_publisher(self, connection: AbstractConnection, channel: Channel) -> Publisher:
        return Publisher(
            tap_of(connection),
            channel.number,
            self.account,
            most=channel.max_content_size,
            seconds=self._publish_seconds,
        )

    def post(self, message: Outgoing, settled: Settled) -> None:
        """As `Link.post`."""
        if self._publisher is None:
            asyncio.get_running_loop().call_soon(settled, LinkDown(self.trouble))
        else:
            self._publisher.post(message, settled)

    async def publish(self, message: Outgoing) -> None:
        """As `Link.publish`."""
        await published(self, message)

    def send(self, message: Outgoing) -> bool:
        """As `Link.send`."""
        return self._logging is not None and self._logging.send(message)

    # -- consuming -------------------------------------------------------------------------------------

    async def _consume_side(self, connection: AbstractConnection) -> None:
        closing: list[Channel] = []
        try:
            async with asyncio.timeout(SETUP_SECONDS):
                if self._replies is not None:
                    closing.append(await self._open_replies(connection, self._replies))
                for keys, on_delivery, on_lost in self._live:
                    closing.append(await self._open_live(connection, keys, on_delivery))
                    on_lost()
                self._private_channel = await _open(connection, confirms=False)
                self._private_taker = self.taker(connection, self._private_channel)
                self._private_prefetch = 0
                closing.append(self._private_channel)
                self._consuming = connection
                await self._attach_all(connection)
            self._tell_up()
            while await _still_open(*closing, seconds=AGAIN_SECONDS):
                await self._attach_all(connection)
        finally:
            self._consuming = self._private_channel = self._private_taker = self._look_channel = None
            self._reply_address = ""
            self._takers.clear()
            private, self._private = self._private, {}
            for on_lost in private.values():
                on_lost()
            for subscription in self._subscriptions:
                subscription.channel = None

    async def _attach_all(self, connection: AbstractConnection) -> None:
        for subscription in list(self._subscriptions):
            if not subscription.attached:
                await subscription.attach(connection)

    async def consume(self, queue: str, on_delivery: OnDelivery, *, prefetch: int) -> RabbitSubscription:
        """Take from a queue, again after every reconnect and as soon as it is there."""
        subscription = RabbitSubscription(self, queue, on_delivery, prefetch)
        self._subscriptions.append(subscription)
        if self._consuming is not None:
            with suppress(*BROKEN), _said_plainly():
                await subscription.attach(self._consuming)
        return subscription

    def forget(self, subscription: RabbitSubscription) -> None:
        """Restore this one no more."""
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)

    async def open_replies(self, on_delivery: OnDelivery) -> None:
        """Ask for a queue for one-shot replies at every connect; call before `start`."""
        self._replies = on_delivery

    async def _open_replies(self, connection: AbstractConnection, on_delivery: OnDelivery) -> Channel:
        channel = await _open(connection, confirms=False)
        name = self._fresh_name("replies")
        arguments: dict[str, Any] = {"x-max-length": REPLY_MESSAGES, "x-overflow": "drop-head"}
        await channel.queue_declare(name, exclusive=True, arguments=arguments)
        await channel.queue_bind(name, REPLIES, name)
        await _consume(self.taker(connection, channel), channel, name, name, on_delivery, acks=False)
        self._reply_address = name
        return channel

    async def hear(self, keys: tuple[str, ...], on_delivery: OnDelivery, on_lost: Callable[[], None]) -> None:
        """Listen to live events; call before `start`. `on_lost` is called at every connect."""
        self._live.append((keys, on_delivery, on_lost))

    async def _open_live(
        self, connection: AbstractConnection, keys: tuple[str, ...], on_delivery: OnDelivery
    ) -> Channel:
        channel = await _open(connection, confirms=False)
        name = self._fresh_name("live")
        arguments: dict[str, Any] = {"x-max-length": REPLY_MESSAGES, "x-overflow": "drop-head"}
        await channel.queue_declare(name, exclusive=True, arguments=arguments)
        for key in keys:
            await channel.queue_bind(name, EVENTS, key)
        await _consume(self.taker(connection, channel), channel, name, name, on_delivery, acks=False)
        return channel

    async def open_private(
        self, on_delivery: OnDelivery, *, most: int, prefetch: int, on_lost: Callable[[], None]
    ) -> RabbitPrivateQueue:
        """A queue for one request, holding at most `most` messages; raises LinkDown."""
        name = self._fresh_name("request")
        arguments: dict[str, Any] = {"x-max-length": most, "x-overflow": "reject-publish"}
        return await self._open_private(name, arguments, REPLIES, (name,), on_delivery, prefetch, on_lost)

    async def follow_logs(
        self, keys: tuple[str, ...], on_delivery: OnDelivery, *, most: int, prefetch: int, on_lost: OnLost
    ) -> RabbitPrivateQueue:
        """A queue of log messages that forgets the oldest beyond `most`; raises LinkDown."""
        name = self._fresh_name("logs")
        arguments: dict[str, Any] = {"x-max-length": most, "x-max-length-bytes": most << 16}
        return await self._open_private(name, arguments, LOGS, keys, on_delivery, prefetch, on_lost)

    async def _open_private(
        self,
        name: str,
        arguments: dict[str, Any],
        exchange: str,
        keys: tuple[str, ...],
        on_delivery: OnDelivery,
        prefetch: int,
        on_lost: OnLost,
    ) -> RabbitPrivateQueue:
        channel, taker = self._private_channel, self._private_taker
        if channel is None or taker is None:
            raise LinkDown(self.trouble)
        queue = RabbitPrivateQueue(self, channel, taker, name)
        # aiormq closes the channel of a call that is cancelled, and this one has the queues of all requests:
        # who gives up while his is being opened leaves it to be opened, and closed.
        opening = self._spawn(self._declare_private(queue, arguments, exchange, keys, on_delivery, prefetch))
        try:
            await asyncio.shield(opening)
        except BROKEN as error:
            raise LinkDown(f"{type(error).__name__}: {error}") from error
        except asyncio.CancelledError:
            queue.is_wanted = False
            opening.add_done_callback(queue.close_unwanted)
            raise
        self._private[name] = on_lost
        return queue

    async def _declare_private(
        self,
        queue: RabbitPrivateQueue,
        arguments: dict[str, Any],
        exchange: str,
        keys: tuple[str, ...],
        on_delivery: OnDelivery,
        prefetch: int,
    ) -> None:
        """One answer for all: the broker takes methods in order, and ends the channel for a bad one."""
        channel, name = queue.channel, queue.name
        with _said_plainly():
            async with self._private_lock:
                if not queue.is_wanted:
                    return
                await channel.queue_declare(name, exclusive=True, arguments=arguments, nowait=True)
                for key in keys:
                    await channel.queue_bind(name, exchange, key, nowait=True)
                if prefetch != self._private_prefetch:
                    await channel.basic_qos(prefetch_count=prefetch)
                    self._private_prefetch = prefetch
                await _consume(queue.taker, channel, name, name, on_delivery)

    def taker(self, connection: AbstractConnection, channel: Channel, *, patient: bool = False) -> Taker:
        """What takes the deliveries of a channel."""
        taker = Taker(tap_of(connection), channel.number, patient=patient)
        self._takers.append(taker)
        return taker

    def release(self, name: str) -> None:
        """A private queue is gone."""
        self._private.pop(name, None)

    async def depths(self, queues: tuple[str, ...]) -> dict[str, tuple[int, int] | None]:
        """Messages ready and consumers of each queue; None for a missing one. Raises LinkDown."""
        found: dict[str, tuple[int, int] | None] = {}
        for name in queues:
            if self._consuming is None:
                raise LinkDown(self.trouble)
            try:
                with _said_plainly():
                    if self._look_channel is None or self._look_channel.is_closed:
                        self._look_channel = await _open(self._consuming, confirms=False)
                    ok = await self._look_channel.queue_declare(name, passive=True, timeout=SETUP_SECONDS)
                found[name] = (ok.message_count or 0, ok.consumer_count or 0)
            except ChannelNotFoundEntity:
                found[name] = None
        return found

    def _fresh_name(self, purpose: str) -> str:
        return f"{self.account}.{purpose}.{uuid.uuid4().hex}"

    def _spawn(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # a settling or a log line that is lost with its connection


class RabbitSubscription:
    """A consumer with a channel of its own, so that what happens to one queue happens to it alone."""

    def __init__(self, link: RabbitLink, queue: str, on_delivery: OnDelivery, prefetch: int) -> None:
        self.queue = queue
        self.channel: Channel | None = None
        self._link = link
        self._on_delivery = on_delivery
        self._prefetch = prefetch
        self._tag = ""

    @property
    def attached(self) -> bool:
        """Whether the broker has our consumer."""
        return self.channel is not None and not self.channel.is_closed and self._tag in self.channel.consumers

    async def attach(self, connection: AbstractConnection) -> None:
        """Consume now; a queue that is not there is said and tried again later."""
        channel = await _open(connection, confirms=False)
        self._tag = f"{self._link.account}.{uuid.uuid4().hex}"
        try:
            await channel.basic_qos(prefetch_count=self._prefetch)
            taker = self._link.taker(connection, channel, patient=True)
            await _consume(taker, channel, self.queue, self._tag, self._on_delivery)
        except ChannelNotFoundEntity:
            log.error("queue_missing", queue=self.queue)
            return
        self.channel = channel

    async def cancel(self) -> None:
        """Take no more; what was delivered can still be settled."""
        self._link.forget(self)
        if self.attached and self.channel is not None:
            with suppress(*BROKEN), _said_plainly():
                await self.channel.basic_cancel(self._tag, timeout=SETUP_SECONDS)


class RabbitPrivateQueue:
    """The queue of one request; its consumer has its name."""

    def __init__(self, link: RabbitLink, channel: Channel, taker: Taker, name: str) -> None:
        self.name = name
        self.channel = channel
        self.taker = taker
        self.is_wanted = True
        self._link = link

    async def close(self) -> None:
        """Delete it: whoever publishes to it next is told that nobody is there."""
        self._link.release(self.name)
        if not self.channel.is_closed:
            self._link._spawn(self._delete())

    def close_unwanted(self, opening: asyncio.Task[Any]) -> None:
        """It is open, and nobody waits for it any more."""
        is_there = self.name in self.taker.consumers
        if is_there and not opening.cancelled() and not self.channel.is_closed:
            self._link._spawn(self._delete())

    async def _delete(self) -> None:
        await self.channel.basic_cancel(self.name, nowait=True, timeout=SETUP_SECONDS)
        await self.channel.queue_delete(self.name, timeout=SETUP_SECONDS)
        self.taker.forget(self.name)


class TappedConnection(aio_pika.Connection):
    """A connection of aio-pika whose frames of messages go past it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.transports = self.kwargs["transport_factory"] = TappedTransports()

    def __del__(self) -> None:
        """Nothing: the parent's would close one that never came up, in a task, even where no loop runs."""


class TappedTransports(TransportFactory):
    """Connects as aiormq does, plainly or with TLS, with a tap between the socket and its reader."""

    tap: Tap

    async def create(self, url: URL, **kwargs: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Called by aiormq, once for a connection."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(loop=loop)
        tap = self.tap = Tap(reader, loop)
        tls = await kwargs["ssl_context_provider"].get_context() if url.scheme == "amqps" else None
        try:
            transport, _ = await loop.create_connection(lambda: tap, url.host or "", url.port or 0, ssl=tls)
        except OSError as error:
            raise AMQPConnectionError(*error.args) from error
        return reader, asyncio.StreamWriter(transport, tap, reader, loop)


def tap_of(connection: AbstractConnection) -> Tap:
    """What sits between a connection and its socket."""
    return cast(TappedConnection, connection).transports.tap


async def _consume(
    taker: Taker, channel: Channel, queue: str, tag: str, on_delivery: OnDelivery, *, acks: bool = True
) -> None:
    taker.consumers[tag] = (on_delivery, acks)
    await channel.basic_consume(queue, _never, no_ack=not acks, consumer_tag=tag)


async def _never(_: DeliveredMessage) -> None:
    """The taker of the channel has them all."""


@contextmanager
def _said_plainly() -> Iterator[None]:
    """A lost connection is a ConnectionError; a cancellation that was meant for us stays one.

    When a connection goes, aiormq ends the calls that wait on it with the reason it has, or with a bare
    Exception when it has none, or by cancelling what they wait for.
    """
    try:
        yield
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise ConnectionError("the connection was closed") from error
    except Exception as error:
        if type(error) is not Exception:
            raise
        raise ConnectionError(f"the connection was closed: {error}") from error


async def _open(connection: AbstractConnection, *, confirms: bool) -> Channel:
    channel = connection.channel(publisher_confirms=confirms, on_return_raises=confirms)
    await channel.initialize(timeout=SETUP_SECONDS)
    return cast(Channel, await channel.get_underlay_channel())


async def _still_open(*channels: Channel, seconds: float) -> bool:
    """True after that time; raises the reason when the first of the channels is closed."""
    closing = [channel.closing for channel in channels]
    try:
        done, _ = await asyncio.wait(closing, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for future in done:
            if not future.cancelled():
                future.result()
            raise ConnectionError("the channel was closed")
        return True
    finally:
        for future in closing:
            future.cancel()
