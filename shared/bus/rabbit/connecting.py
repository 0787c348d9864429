"""A connection to RabbitMQ whose messages go past the client library, its channels, and how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import aio_pika
from aio_pika.abc import AbstractConnection
from aiormq.abc import ArgumentsType, DeliveredMessage
from aiormq.channel import Channel
from aiormq.connection import TransportFactory
from aiormq.exceptions import AMQPConnectionError, AMQPError
from yarl import URL

from shared.bus.amqp import Taker, Tap
from shared.bus.link import OnDelivery

HEARTBEAT_SECONDS = 5
CONNECT_SECONDS = 5.0
SETUP_SECONDS = 5.0
BROKEN = (AMQPError, ConnectionError, OSError, RuntimeError, asyncio.TimeoutError)


async def connect(url: str, name: str) -> AbstractConnection:
    """One connection under this name; nothing connects it again."""
    return await aio_pika.connect(
        url,
        timeout=CONNECT_SECONDS,
        heartbeat=HEARTBEAT_SECONDS,
        client_properties={"connection_name": name},
        connection_class=TappedConnection,
    )


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


async def start_consuming(
    taker: Taker,
    channel: Channel,
    queue: str,
    tag: str,
    on_delivery: OnDelivery,
    *,
    acks: bool = True,
    arguments: ArgumentsType | None = None,
) -> None:
    """Consume under this tag; what comes is handed out by the taker."""
    taker.consumers[tag] = (on_delivery, acks)
    await channel.basic_consume(queue, _never, no_ack=not acks, consumer_tag=tag, arguments=arguments)


async def _never(_: DeliveredMessage) -> None:
    """The taker of the channel has them all."""


@contextmanager
def said_plainly() -> Iterator[None]:
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


async def open_channel(connection: AbstractConnection, *, confirms: bool) -> Channel:
    """A channel of a connection, as the library below aio-pika knows it."""
    channel = connection.channel(publisher_confirms=confirms, on_return_raises=confirms)
    await channel.initialize(timeout=SETUP_SECONDS)
    return cast(Channel, await channel.get_underlay_channel())


async def still_open(*channels: Channel, seconds: float) -> bool:
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
