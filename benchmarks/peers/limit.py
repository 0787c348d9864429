"""The limit: an aiohttp handler that decodes and answers, with nothing behind it.

Nothing that speaks HTTP through aiohttp can be faster than this: uvloop, msgspec into a typed structure, no
access log. The body is that of a call (`{"text": ...}`) or of a reading (`{"values": {...}}`).
Source of truth: docs.aiohttp.org, "Server Tutorial" and "Web Server Advanced"; msgspec, "Performance Tips".
"""

from __future__ import annotations

import argparse

import msgspec
import uvloop
from aiohttp import web


class Body(msgspec.Struct, gc=False):
    """What a call or a reading sends."""

    text: str = ""
    values: dict[str, float] = {}


class Answer(msgspec.Struct, gc=False):
    """What is answered to both."""

    text: str
    values: int


decode = msgspec.json.Decoder(Body).decode
encode = msgspec.json.Encoder().encode


async def post(request: web.Request) -> web.Response:
    """Decode and say back."""
    body = decode(await request.read())
    return web.Response(body=encode(Answer(body.text, len(body.values))), content_type="application/json")


async def get(_: web.Request) -> web.Response:
    """The same without a body."""
    return web.Response(body=encode(Answer("limit", 0)), content_type="application/json")


def main() -> None:
    """Serve until SIGTERM."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("role", choices=["web"])
    arguments.add_argument("--port", type=int, required=True)
    app = web.Application()
    app.add_routes([web.post("/", post), web.get("/", get)])
    web.run_app(
        app,
        host="127.0.0.1",
        port=arguments.parse_args().port,
        access_log=None,
        shutdown_timeout=1,
        print=lambda *_: print("ready", flush=True),
        loop=uvloop.new_event_loop(),
    )


if __name__ == "__main__":
    main()
