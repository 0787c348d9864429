"""Server-Sent Events: an answer that goes on until its session ends, its client goes, or the gateway stops.

The form is that of https://html.spec.whatwg.org/multipage/server-sent-events.html.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from services.gateway.http.answers import renderer, to_json
from services.gateway.live.tail import Following, LogTail, LostLines, Pattern
from shared.bus.requests import Unavailable
from shared.contracts.worker import LogLine, StoredLine
from shared.errors import TooMany

EVENT_STREAM = "text/event-stream"
LOOK_SECONDS = 1.0
MOST_LINES = 200  # of one message: nobody reads a thousand in a fifth of a second
AGAIN_MS = 3_000  # when a browser asks anew after its connection broke
_render = renderer(StoredLine)

GoesOn = Callable[[], Awaitable[bool]]


class LogStream(web.StreamResponse):
    """Lines of the log, each an event whose data is as an item of `GET /v1/logs`.

    `goes_on` is asked every second whether to. Events beside lines: `lost` (the broker was away: lines are
    missing here, not in the log), `skipped` (more came at once than anybody reads) and `end` (ask anew).
    """

    def __init__(self, tail: LogTail, pattern: Pattern, goes_on: GoesOn) -> None:
        super().__init__(headers={"Content-Type": EVENT_STREAM, "X-Accel-Buffering": "no"})
        self._tail = tail
        self._pattern = pattern
        self._goes_on = goes_on
        self._silent_since = 0.0
        self._asked: web.BaseRequest | None = None

    def response(self) -> web.StreamResponse:
        """As aiohttp sends it."""
        return self

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """The headers go out."""
        self._asked = request
        return await super().prepare(request)

    async def write_eof(self, data: bytes = b"") -> None:
        """Everything after the headers."""
        if self._asked is not None:
            await self._run(self._asked)
        await super().write_eof(data)

    async def _run(self, request: web.BaseRequest) -> None:
        await self._say(f"retry: {AGAIN_MS}\n: following\n\n".encode())
        while await self._is_wanted(request):
            try:
                async with self._tail.follow(self._pattern) as following:
                    await self._tell(following, request)
            except (LostLines, Unavailable):
                await self._say(_event("lost", {}))
                await asyncio.sleep(LOOK_SECONDS)
            except TooMany:
                break
        await self._say(_event("end", {}))

    async def _tell(self, following: Following, request: web.BaseRequest) -> None:
        loop = asyncio.get_running_loop()
        while await self._is_wanted(request):
            lines: list[LogLine] = []
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    lines = await following.next()
            except TimeoutError:
                pass
            if lines:
                await self._say(_events(lines))
            elif loop.time() - self._silent_since >= self._tail.beat_seconds:
                await self._say(b":\n\n")

    async def _is_wanted(self, request: web.BaseRequest) -> bool:
        return request.transport is not None and await self._goes_on()

    async def _say(self, data: bytes) -> None:
        await self.write(data)
        self._silent_since = asyncio.get_running_loop().time()


def _events(lines: list[LogLine]) -> bytes:
    said = [_event("", shown(line)) for line in lines[:MOST_LINES]]
    if len(lines) > MOST_LINES:
        said.append(_event("skipped", {"lines": len(lines) - MOST_LINES}))
    return b"".join(said)


def _event(name: str, data: Any) -> bytes:
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + to_json(data) + b"\n\n"  # JSON has no line break


def shown(line: LogLine) -> Any:
    """A line as `GET /v1/logs` shows it once it is stored."""
    stored = StoredLine(
        at=line.at,
        level=line.level,
        service=line.service,
        event=line.event,
        request_id=line.request_id,
        trace_id=line.trace_id,
        fields=line.fields,
    )
    return stored if _render is None else _render(stored)
