"""FastStream behind aiohttp: a service of its RabbitBroker, asked over one permanent reply queue.

`POST /` `{"text": ...}` becomes a message to the queue of the service, whose reply `{"text": ...}` is
answered. FastStream has two ways to ask. `broker.request()` holds a lock and starts and cancels a consumer
for every call, one after the other; publishing with `reply_to` to a subscriber of one's own, which its
documentation advises for a permanent flow, is about twice as fast under load and is what is done here.

Tuned: uvloop, msgspec instead of pydantic for the arguments, prefetch 200, no log line for each message,
messages not persistent, acknowledged before they are handled, no publisher confirms, requests not
mandatory.
Source of truth: faststream.ag2.ai, "RabbitMQ: RPC" (Reply-To), "Acknowledgement", "Serialization: msgspec".
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
from itertools import count

import msgspec
import uvloop
from aiohttp import web
from fast_depends.msgspec import MsgSpecSerializer
from faststream import AckPolicy
from faststream.rabbit import Channel, RabbitBroker, RabbitMessage, RabbitQueue

QUEUE = RabbitQueue("faststream_rpc", auto_delete=True)
SECONDS = 10
PREFETCH = 200


class Call(msgspec.Struct, gc=False):
    """What is asked, and what is answered."""

    text: str


decode = msgspec.json.Decoder(Call).decode
encode = msgspec.json.Encoder().encode


def new_broker() -> RabbitBroker:
    """A broker that does no more for a message than it must."""
    return RabbitBroker(
        os.environ["BENCH_AMQP_URL"],
        default_channel=Channel(prefetch_count=PREFETCH, publisher_confirms=False),
        ack_policy=AckPolicy.ACK_FIRST,
        logger=None,
        serializer=MsgSpecSerializer(),
    )


class Rpc:
    """Calls that wait, by their correlation id."""

    def __init__(self) -> None:
        self._waiting: dict[str, asyncio.Future[Call]] = {}
        self._numbers = count()
        self._replies = RabbitQueue(f"faststream_rpc.{os.getpid()}", exclusive=True)

    async def open(self, _: web.Application) -> None:
        """Connect, and listen to the replies."""
        self._broker = new_broker()
        self._broker.subscriber(self._replies, no_reply=True)(self._on_reply)
        await self._broker.start()

    async def close(self, _: web.Application) -> None:
        """Leave the broker."""
        await self._broker.stop()

    async def call(self, call: Call) -> Call:
        """Publish and wait for the reply."""
        number = str(next(self._numbers))
        reply = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(SECONDS):
                await self._broker.publish(
                    call, QUEUE, reply_to=self._replies.name, correlation_id=number, mandatory=False
                )
                return await reply
        finally:
            del self._waiting[number]

    async def _on_reply(self, reply: Call, message: RabbitMessage) -> None:
        waiting = self._waiting.get(message.correlation_id)
        if waiting is not None and not waiting.done():
            waiting.set_result(reply)


def serve_web(port: int) -> None:
    """HTTP in front of the calls."""
    rpc = Rpc()

    async def post(request: web.Request) -> web.Response:
        reply = await rpc.call(decode(await request.read()))
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
    broker = new_broker()

    @broker.subscriber(QUEUE)
    async def on_call(call: Call) -> Call:
        return call

    await broker.start()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    print("ready", flush=True)
    await stop.wait()
    await broker.stop()


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
