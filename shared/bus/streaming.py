"""Streamed replies: numbered parts into the request's own queue; full means wait, returned means stop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, suppress
from typing import Any

import msgspec
import structlog

from shared.bus import codec
from shared.bus.codec import ReplyFrame
from shared.bus.endings import Outcome, Work, refusal_of
from shared.bus.inbox import Inbox
from shared.bus.link import Link, Nacked, NotPublished, Outgoing, PublishUnknown, Unroutable
from shared.bus.routes import Route
from shared.bus.running import Runner
from shared.bus.topology import REPLIES
from shared.bus.verdict import Ending
from shared.contracts.submissions import RefusalBody
from shared.errors import Refusal

log = structlog.get_logger()

AGAIN_SECONDS = 0.02
# Fifty exports that all made their parts at once took every database connection, and writes waited for one.
MADE_AT_ONCE = 2
NIL = msgspec.Raw(b"\xc0")
INTERNAL = RefusalBody(status=500, code="internal")


class Streamer:
    """Runs stream handlers; the queue of the request is all the back-pressure and cancellation there is."""

    def __init__(self, link: Link, inbox: Inbox, runner: Runner, clock: Callable[[], float]) -> None:
        self._link = link
        self._inbox = inbox
        self._runner = runner
        self._clock = clock
        self._turns = asyncio.Semaphore(MADE_AT_ONCE)

    async def run(self, route: Route, work: Work) -> Outcome:
        """Publish every part the handler yields, then the last; a failure is the last part."""
        left = work.frame.seconds_left(self._clock())
        if left is not None and left <= 0:
            return Outcome(Ending.EXPIRED)
        message = self._runner.decoded(work.frame)
        if isinstance(message, Outcome):
            return message
        number = 0
        parts = route.handler(message, self._runner.deps_for_query(route, work.frame))
        try:
            async with aclosing(self._ahead(parts)) as made:
                async for part in made:
                    body = msgspec.Raw(codec.encode(part))
                    await self._publish(work, _reply(work, part=number, body=body, last=False))
                    number += 1
            await self._publish(work, _reply(work, part=number))
        except Unroutable:
            log.info("stream_stopped", topic=work.frame.topic, parts=number)
        except Refusal as refusal:
            await self._fail(work, number, refusal_of(refusal))
        except Exception as error:
            log.error("stream_failed", topic=work.frame.topic, parts=number, exc_info=error)
            away = self._inbox.away(error)
            await self._fail(work, number, RefusalBody(status=503, code="unavailable") if away else INTERNAL)
        finally:
            await parts.aclose()
        return Outcome(Ending.STREAMED)

    async def _ahead(self, parts: AsyncIterator[Any]) -> AsyncGenerator[Any]:
        """Every part; the next is made while one is sent."""
        making = asyncio.create_task(self._make(parts))
        try:
            while (part := await making) is not None:
                making = asyncio.create_task(self._make(parts))
                yield part
        finally:
            making.cancel()
            await asyncio.gather(making, return_exceptions=True)

    async def _make(self, parts: AsyncIterator[Any]) -> Any:
        async with self._turns:
            return await anext(parts, None)

    async def _publish(self, work: Work, reply: ReplyFrame) -> None:
        to = work.taken.delivery.properties.reply_to
        message = Outgoing(REPLIES, to, codec.join([codec.encode(reply)]), persistent=False)
        while True:
            try:
                await self._link.publish(message)
                return
            except Unroutable:
                raise
            except (Nacked, PublishUnknown):  # a repeated part is known by its number
                await asyncio.sleep(AGAIN_SECONDS)
            except NotPublished as error:
                raise Unroutable("the connection was lost, and the requester's queue with it") from error

    async def _fail(self, work: Work, number: int, refusal: RefusalBody) -> None:
        with suppress(NotPublished):
            await self._publish(work, _reply(work, part=number, status=refusal.status, refusal=refusal))


def _reply(
    work: Work,
    *,
    part: int,
    body: msgspec.Raw = NIL,
    last: bool = True,
    status: int = 200,
    refusal: RefusalBody | None = None,
) -> ReplyFrame:
    frame = work.frame
    return ReplyFrame(
        id=frame.id, call=frame.call, status=status, body=body, refusal=refusal, part=part, last=last
    )
