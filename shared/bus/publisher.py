"""Publishing on one channel: whole messages in one write, confirms counted here, one timer for all."""

from __future__ import annotations

import asyncio
import struct
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from itertools import takewhile
from typing import Any, NamedTuple

import structlog

from shared.bus.amqp import (
    ACK,
    BODY,
    FRAME,
    HEADER,
    METHOD,
    NACK,
    NUMBER_AND_BITS,
    PUBLISH,
    RETURN,
    Tap,
    read_properties,
)
from shared.bus.link import LinkDown, Nacked, Outgoing, PublishUnknown, Settled, Unroutable

log = structlog.get_logger()

MANDATORY = MULTIPLE = 1
SHAPES_KEPT = 1_000
_content = struct.Struct(">BHIHHQ")
_flags = struct.Struct(">H")

WriteTable = Callable[[Mapping[str, Any]], bytes]


class _Shape(NamedTuple):
    """The bytes that messages of one address share; between `before` and `after` go expiration and id."""

    method: bytes
    before: bytes
    after: bytes


class _Posted(NamedTuple):
    at: float
    settled: Settled
    message: Outgoing


class Publisher:
    """Publishes on one channel of its own, which must be in confirm mode for `post`.

    It counts the delivery tags itself, so nobody else may publish there. While the socket takes no more,
    messages wait here: never sent if the connection is lost meanwhile.
    """

    def __init__(
        self, tap: Tap, number: int, account: str, write_table: WriteTable, *, most: int, seconds: float
    ) -> None:
        self.closed = ""
        self._tap = tap
        self._channel = number
        self._user = _short(account)
        self._write_table = write_table
        self._most = most
        self._seconds = seconds
        # The length byte and the first 20 characters of every id; the other 12 are the delivery tag.
        self._id = b"\x20" + uuid.uuid4().hex[:20].encode()
        self._number = 0
        self._shapes: dict[tuple[Any, ...], _Shape] = {}
        self._waiting: dict[int, _Posted] = {}
        self._held: deque[_Posted] = deque()
        self._timer: asyncio.TimerHandle | None = None
        tap.attach(number, self)

    def post(self, message: Outgoing, settled: Settled) -> None:
        """As `Link.post`."""
        if self.closed:
            self._tap.loop.call_soon(settled, LinkDown(self.closed))
            return
        posted = _Posted(time.monotonic(), settled, message)
        if self._tap.paused:
            self._held.append(posted)
        else:
            self._write(posted)
        if self._timer is None:
            self._timer = self._look_in(self._seconds)

    def send(self, message: Outgoing) -> bool:
        """Publish and forget; False, and not sent, while the socket takes no more and after the end."""
        if self.closed or self._tap.paused:
            return False
        self._number += 1
        self._tap.write(self._frames(message, self._number))
        return True

    @property
    def oldest_unconfirmed_seconds(self) -> float:
        """How long the oldest message without a confirm has been waiting; 0 when there is none."""
        oldest = self._oldest()
        return 0.0 if oldest is None else time.monotonic() - oldest

    def _oldest(self) -> float | None:
        for posted in self._waiting.values():
            return posted.at
        return self._held[0].at if self._held else None

    def _write(self, posted: _Posted) -> None:
        try:
            frames = self._frames(posted.message, self._number + 1)
        except (ValueError, TypeError) as error:  # no such message can be written
            self._tap.loop.call_soon(posted.settled, error)
            return
        self._number += 1
        self._waiting[self._number] = posted
        self._tap.write(frames)

    def _frames(self, message: Outgoing, number: int) -> bytes:
        shape = self._shape(message)
        properties = shape.before
        if message.expiration_ms:
            properties += _short(str(message.expiration_ms))
        properties = b"%b%b%012x%b" % (properties, self._id, number, shape.after)
        body, channel = message.body, self._channel
        head = _content.pack(HEADER, channel, 12 + len(properties), 60, 0, len(body))
        pieces = [shape.method, head, properties, b"\xce"]
        for at in range(0, len(body), self._most):
            piece = body if len(body) <= self._most else body[at : at + self._most]
            pieces += (FRAME.pack(BODY, channel, len(piece)), piece, b"\xce")
        return b"".join(pieces)

    def _shape(self, message: Outgoing) -> _Shape:
        if message.headers or message.correlation_id or message.type:
            return self._shaped(message)
        key = (
            message.exchange,
            message.key,
            message.reply_to,
            message.persistent,
            message.mandatory,
            message.content_type,
            message.expiration_ms > 0,
        )
        shape = self._shapes.get(key)
        if shape is None:
            if len(self._shapes) >= SHAPES_KEPT:
                self._shapes.clear()
            shape = self._shapes[key] = self._shaped(message)
        return shape

    def _shaped(self, message: Outgoing) -> _Shape:
        address = _short(message.exchange) + _short(message.key)
        method = PUBLISH + bytes(2) + address + bytes((MANDATORY if message.mandatory else 0,))
        # The properties in the order of their bits, from the highest: content type, headers, delivery mode,
        # correlation id, reply to, (expiration, message id,) type, user id.
        flags, before, after = 0x9090, _short(message.content_type), b""
        if message.headers:
            flags |= 0x2000
            before += self._write_table(message.headers)
        before += b"\x02" if message.persistent else b"\x01"
        for bit, text in ((0x0400, message.correlation_id), (0x0200, message.reply_to)):
            if text:
                flags |= bit
                before += _short(text)
        if message.expiration_ms:
            flags |= 0x0100
        if message.type:
            flags |= 0x0020
            after = _short(message.type)
        return _Shape(
            FRAME.pack(METHOD, self._channel, len(method)) + method + b"\xce",
            _flags.pack(flags) + before,
            after + self._user,
        )

    # -- what the broker answers -----------------------------------------------------------------------

    def take(self, kind: int, data: bytes, start: int, stop: int) -> bool:
        """As `HotChannel.take`: confirms, and messages that come back because no queue is bound."""
        if kind == METHOD:
            method = data[start : start + 4]
            if method in (ACK, NACK):
                number, bits = NUMBER_AND_BITS.unpack_from(data, start + 4)
                self._confirmed(number, bits & MULTIPLE, method == NACK)
            elif method != RETURN:
                return False
        elif kind == HEADER:
            self._returned(read_properties(data, start + 12, lambda _: {}).message_id)
        return True

    def _confirmed(self, number: int, multiple: int, nacked: bool) -> None:
        waiting = self._waiting
        numbers = list(takewhile(number.__ge__, waiting)) if multiple else (number,)
        for each in numbers:
            posted = waiting.pop(each, None)
            if posted is not None:
                _tell(posted, Nacked(posted.message.key) if nacked else None)

    def _returned(self, message_id: str) -> None:
        """Before the confirm that follows it, which then finds nobody waiting."""
        posted = self._waiting.pop(int(message_id[20:], 16), None)
        if posted is not None:
            _tell(posted, Unroutable(f"{posted.message.exchange} {posted.message.key}"))

    def resume(self) -> None:
        """As `HotChannel.resume`."""
        while self._held and not self._tap.paused:
            self._write(self._held.popleft())

    def end(self, reason: str) -> None:
        """As `HotChannel.end`: what was sent may have arrived, what was held never left."""
        if self.closed:
            return
        self.closed = reason
        if self._timer is not None:
            self._timer.cancel()
        waiting, self._waiting = self._waiting, {}
        held, self._held = self._held, deque()
        for posted in waiting.values():
            _tell(posted, PublishUnknown(reason))
        for posted in held:
            _tell(posted, LinkDown(reason))

    def _sweep(self) -> None:
        """Tell whoever has waited too long, and look again when the next one will have."""
        until = time.monotonic() - self._seconds
        late = list(takewhile(lambda number: self._waiting[number].at <= until, self._waiting))
        given_up = [self._waiting.pop(number) for number in late]
        while self._held and self._held[0].at <= until:
            given_up.append(self._held.popleft())
        oldest = self._oldest()
        self._timer = None if oldest is None else self._look_in(oldest - until)
        for posted in given_up:
            _tell(posted, PublishUnknown(f"no confirm in {self._seconds} s"))

    def _look_in(self, seconds: float) -> asyncio.TimerHandle:
        # The loop counts in milliseconds: one more, and it never looks too early.
        return self._tap.loop.call_later(seconds + 0.001, self._sweep)


def _tell(posted: _Posted, error: BaseException | None) -> None:
    try:
        posted.settled(error)
    except Exception:  # the others must hear too
        log.exception("settling_failed", key=posted.message.key)


def _short(text: str) -> bytes:
    """A short string of AMQP; raises ValueError beyond 255 bytes."""
    encoded = text.encode()
    return bytes((len(encoded),)) + encoded
