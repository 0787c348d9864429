"""Plain aio-pika behind aiohttp: one reply queue, correlation ids and futures, a message for each call.

`POST /` `{"text": ...}` becomes a message to the queue of the service, whose reply `{"text": ...}` is
answered. This is the RPC of aio-pika's tutorial, made faster: no declaration in a call, a future for each
correlation id.

Tuned: uvloop, msgspec, messages not persistent, no publisher confirms and no acknowledgements (the caller
is told by its time limit), and `mandatory=False`: aio-pika's default would have every unroutable reply sent
back.
Source of truth: docs.aio-pika.com, "RPC" of its RabbitMQ tutorial, and its class reference
(`Exchange.publish`).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
from itertools import count

import aio_pika
import msgspec
import uvloop
from aio_pika import DeliveryMode, Message
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage
from aiohttp import web

QUEUE = "aio_pika_rpc"
SECONDS = 10


class Call(msgspec.Struct, gc=False):
    """What is asked, and what is answered."""

    text: str


decode = msgspec.json.Decoder(Call).decode
encode = msgspec.json.Encoder().encode


async def connect() -> tuple[AbstractConnection, AbstractChannel]:
    """A connection and its channel, without confirms."""
    connection = await aio_pika.connect(os.environ["BENCH_AMQP_URL"])
    return connection, await connection.channel(publisher_confirms=False)


class Rpc:
    """Calls that wait, by their correlation id."""

    def __init__(self) -> None:
        self._waiting: dict[str, asyncio.Future[bytes]] = {}
        self._numbers = count()

    async def open(self, _: web.Application) -> None:
        """Connect, and have a queue for the replies."""
        self._connection, self._channel = await connect()
        queue = await self._channel.declare_queue(exclusive=True)
        self._reply_to = queue.name
        await queue.consume(self._on_reply, no_ack=True)

    async def close(self, _: web.Application) -> None:
        """Leave the broker."""
        await self._connection.close()

    async def call(self, body: bytes) -> bytes:
        """Publish and wait for the reply."""
        number = str(next(self._numbers))
        reply = self._waiting[number] = asyncio.get_running_loop().create_future()
        message = Message(
            body, correlation_id=number, reply_to=self._reply_to, delivery_mode=DeliveryMode.NOT_PERSISTENT
        )
        try:
            async with asyncio.timeout(SECONDS):
                await self._channel.default_exchange.publish(message, QUEUE, mandatory=False)
                return await reply
        finally:
            del self._waiting[number]

    async def _on_reply(self, message: AbstractIncomingMessage) -> None:
        waiting = self._waiting.get(message.correlation_id or "")
        if waiting is not None and not waiting.done():
            waiting.set_result(message.body)


def serve_web(port: int) -> None:
    """HTTP in front of the calls."""
    rpc = Rpc()

    async def post(request: web.Request) -> web.Response:
        call = decode(await request.read())
        reply = decode(await rpc.call(encode(call)))
        return web.Response(body=encode(reply), content_type="application/json")

    app = web.Application()
    app.add_routes([web.post("/", post)])
    app.on_startup.append(rpc.open)
    app.on_cleanup.append(rpc.close)
    web.run_app(
        app,
        host="127.0.0.1",
        port=port,
        access_log=None,
        shutdown_timeout=1,
        print=lambda *_: print("ready", flush=True),
        loop=uvloop.new_event_loop(),
    )


async def serve_calls() -> None:
    """The service: answer each call until SIGTERM."""
    connection, channel = await connect()
    queue = await channel.declare_queue(QUEUE, auto_delete=True)
    exchange = channel.default_exchange

    async def on_call(message: AbstractIncomingMessage) -> None:
        reply = Message(
            encode(decode(message.body)),
            correlation_id=message.correlation_id,
            delivery_mode=DeliveryMode.NOT_PERSISTENT,
        )
        await exchange.publish(reply, message.reply_to or "", mandatory=False)

    await queue.consume(on_call, no_ack=True)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    print("ready", flush=True)
    await stop.wait()
    await connection.close()


def main() -> None:
    """Be the service or the HTTP server in front of it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["service", "web"])
    parser.add_argument("--port", type=int)
    arguments = parser.parse_args()
    if arguments.role == "web":
        serve_web(arguments.port)
    else:
        uvloop.run(serve_calls())


if __name__ == "__main__":
    main()
