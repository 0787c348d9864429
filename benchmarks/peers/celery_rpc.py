"""Celery behind aiohttp: a task, its worker, and results that come back over its rpc:// backend.

`POST /` `{"text": ...}` becomes a task, whose result `{"text": ...}` is answered. Celery is asked as its
documentation says, `apply_async(...).get(timeout=...)`, which blocks and so runs in threads. Each thread
has a reply queue and a connection of its own; sixteen were the fastest of 8, 16 and 64, and one thread that
publishes with callbacks (`AsyncResult.then`) was slower, because the backend declares its queue again in
every call.

Tuned: the solo pool, the fastest of solo, threads, gevent and prefork for a task that does nothing; no
prefetch limit; messages and results not persistent; no events, gossip, mingle, heartbeat or remote control.
Source of truth: docs.celeryq.dev ("Optimizing", "Configuration and defaults", "Workers Guide").
"""

from __future__ import annotations

import argparse
import asyncio
import os
from concurrent.futures import ThreadPoolExecutor

import msgspec
import uvloop
from aiohttp import web
from celery import Celery
from celery.signals import worker_ready

SECONDS = 10
THREADS = 16

celery = Celery("celery_rpc", broker=os.environ["BENCH_AMQP_URL"], backend="rpc://")
celery.conf.update(
    broker_connection_retry_on_startup=True,
    broker_heartbeat=0,
    broker_pool_limit=THREADS,
    result_persistent=False,
    task_default_delivery_mode="transient",
    task_default_queue="celery_rpc",
    worker_enable_remote_control=False,
    worker_prefetch_multiplier=0,
    worker_redirect_stdouts=False,
)
QUIET = ("--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel=ERROR")


class Call(msgspec.Struct, gc=False):
    """What is asked."""

    text: str


decode = msgspec.json.Decoder(Call).decode
encode = msgspec.json.Encoder().encode


@celery.task(name="say")
def say(text: str) -> dict[str, str]:
    """Answer with what was asked."""
    return {"text": text}


def call(text: str) -> dict[str, str]:
    """Send the task and wait for its result."""
    reply: dict[str, str] = say.apply_async((text,)).get(timeout=SECONDS)
    return reply


def serve_web(port: int) -> None:
    """HTTP in front of the calls."""
    threads = ThreadPoolExecutor(THREADS)

    async def post(request: web.Request) -> web.Response:
        asked = decode(await request.read())
        reply = await asyncio.get_running_loop().run_in_executor(threads, call, asked.text)
        return web.Response(body=encode(reply), content_type="application/json")

    app = web.Application()
    app.add_routes([web.post("/", post)])
    web.run_app(
        app,
        host="127.0.0.1",
        port=port,
        access_log=None,
        shutdown_timeout=1,
        print=lambda *_: print("ready", flush=True),
        loop=uvloop.new_event_loop(),
    )


@worker_ready.connect
def say_ready(**_: object) -> None:
    """The worker consumes."""
    print("ready", flush=True)


def main() -> None:
    """Be the worker or the HTTP server in front of it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["service", "web"])
    parser.add_argument("--port", type=int)
    arguments = parser.parse_args()
    if arguments.role == "web":
        serve_web(arguments.port)
    else:
        celery.worker_main(["worker", "--pool=solo", *QUIET])


if __name__ == "__main__":
    main()
