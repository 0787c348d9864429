"""Messages past the client library: their frames, and what settles them, with no task or timer for each."""

from __future__ import annotations

import asyncio
import struct
import time
from collections import deque
from collections.abc import Callable
from functools import lru_cache
from itertools import takewhile
from typing import Any, cast

import structlog
from pamqp import commands
from pamqp.body import ContentBody
from pamqp.frame import marshal

from shared.bus import link
from shared.bus.codec import Properties

log = structlog.get_logger()

METHOD, HEADER, BASIC = 1, 2, 60 << 16
FRAME = struct.Struct(">BHI")  # kind, channel and size of the payload, which follows, and then 0xCE
HEAD = struct.Struct(">BHIIQ")  # of a frame with properties, up to the size of the body
FED_SECONDS = 1.0
# Each ack of a quorum queue is an entry of its log, synced to disk as a message is, and the next message
# waits for that. Acks can wait: what is delivered again after a crash is known.
ACKS_TOGETHER, PATIENCE_SECONDS = 16, 0.02


class Tap(asyncio.StreamReaderProtocol):
    """Between the socket and the library's reader: frames go to a `HotChannel`, or on to there.

    Connections, channels, declarations, heartbeats stay with the library. Both write whole frames only."""

    def __init__(self, reader: asyncio.StreamReader, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(reader, loop=loop)
        self.loop = loop
        self.paused = False
        self.channels: dict[int, HotChannel] = {}
        self._rest = b""
        self._fed = loop.time()

    def write(self, frames: bytes) -> None:
        """Send whole frames; after the end of the connection this does nothing."""
        if frames and not self._transport.is_closing():
            self._transport.write(frames)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = cast(Any, transport)  # uvloop's is no subclass
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        data, at, hot = self._rest + data, 0, False
        while len(data) - at >= 8:
            kind, number, size = FRAME.unpack_from(data, at)
            stop = at + size + 8
            if stop > len(data):
                break
            taken = number in self.channels and self.channels[number].take(kind, data[at + 7 : stop - 1])
            if not taken:
                super().data_received(data[at:stop])
            at, hot = stop, hot or taken
        self._rest = data[at:]
        # Frames taken here are a sign of life too; a broker that sends them sends no heartbeats.
        if hot and self.loop.time() - self._fed > FED_SECONDS:
            self._fed = self.loop.time()
            super().data_received(FRAME.pack(8, 0, 0) + b"\xce")

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        for channel in self.channels.values():
            channel.end(f"{type(exc).__name__}: {exc}" if exc else "the connection was closed")

    def pause_writing(self) -> None:
        self.paused = True
        super().pause_writing()

    def resume_writing(self) -> None:
        self.paused = False
        super().resume_writing()
        for channel in self.channels.values():
            if isinstance(channel, Publisher):
                channel.resume()


class HotChannel:
    """A channel whose messages are put together here: `arrive` is told, and `end` why there are no more."""

    arrive: Callable[[Any, Properties, bytes], None]
    end: Callable[[str], None]

    def __init__(self, tap: Tap, number: int) -> None:
        self._tap, self._number = tap, number
        self._method: Any = None
        self._header = self._body = b""
        tap.channels[number] = self

    def take(self, kind: int, payload: bytes) -> bool:
        """Take a frame; False for one that is the library's."""
        if kind == METHOD:
            self._method = method = commands.INDEX_MAPPING[int.from_bytes(payload[:4], "big")]()
            return self.hear(_read(method, payload[4:]))
        self._header, self._body = (payload, b"") if kind == HEADER else (self._header, self._body + payload)
        if len(self._body) >= int.from_bytes(self._header[4:12], "big"):
            self.arrive(self._method, _properties(self._header[12:]), self._body)
        return True

    def hear(self, method: Any) -> bool:
        """Whether a method is ours: those that a message follows are. The end of a channel all must hear."""
        if method.name == "Channel.Close":
            self._tap.channels.pop(self._number).end(f"{method.reply_code} {method.reply_text}")
        return method.name in ("Basic.Deliver", "Basic.Return")


class Publisher(HotChannel):
    """Publishes on one channel of its own, which must be in confirm mode for `post`.

    It counts the delivery tags itself, so nobody else may publish there. While the socket takes no more,
    messages wait here: never sent if the connection is lost meanwhile.
    """

    def __init__(self, tap: Tap, number: int, account: str, *, most: int, seconds: float) -> None:
        super().__init__(tap, number)
        self.closed, self._sent = "", 0
        self._account, self._most, self._seconds = account, most, seconds
        self._waiting: dict[int, tuple[float, link.Outgoing, link.Settled]] = {}
        self._held: deque[tuple[float, link.Outgoing, link.Settled]] = deque()

    def post(self, message: link.Outgoing, settled: link.Settled) -> None:
        """As `Link.post`."""
        if self.closed:
            self._tap.loop.call_soon(settled, link.LinkDown(self.closed))
        else:
            self._held.append((time.monotonic(), message, settled))
            self.resume()

    def send(self, message: link.Outgoing) -> bool:
        """Publish and forget; False, and not sent, while the socket takes no more and after the end."""
        if self.closed or self._tap.paused:
            return False
        self._tap.write(self._frames(message))
        return True

    def resume(self) -> None:
        while self._held and not self._tap.paused:
            at, message, settled = self._held.popleft()
            try:
                frames = self._frames(message)
            except (ValueError, TypeError) as error:  # no such message can be written
                self._tap.loop.call_soon(settled, error)
            else:
                self._waiting[self._sent] = (at, message, settled)
                self._tap.write(frames)

    def _frames(self, it: link.Outgoing) -> bytes:
        shape: Any = _shape.__wrapped__ if it.headers else _shape
        method, properties = shape(
            self._number, it.exchange, it.key, it.mandatory, it.content_type, dict(it.headers) or None,
            it.persistent, it.correlation_id, it.reply_to, it.expiration_ms, it.type, self._account,
        )  # fmt: skip
        head = HEAD.pack(HEADER, self._number, 12 + len(properties), BASIC, len(it.body))
        pieces = [ContentBody(it.body[at : at + self._most]) for at in range(0, len(it.body), self._most)]
        self._sent += 1
        return b"".join((method, head, properties, b"\xce", *(marshal(one, self._number) for one in pieces)))

    def hear(self, method: Any) -> bool:
        if method.name not in ("Basic.Ack", "Basic.Nack"):
            return super().hear(method)
        number = method.delivery_tag
        for each in [*takewhile(number.__ge__, self._waiting)] if method.multiple else [number]:
            if each in self._waiting:
                _, message, settled = self._waiting.pop(each)
                _tell(settled, link.Nacked(message.key) if method.name == "Basic.Nack" else None)
        return True

    def arrive(self, method: Any, properties: Properties, body: bytes) -> None:
        """A message came back, before the confirm that then finds nobody; of equal ones any will do."""
        returned = (method.exchange, method.routing_key, properties.correlation_id, body)
        for number, (_, it, _) in self._waiting.items():
            if (it.exchange, it.key, it.correlation_id, it.body) == returned:
                _tell(self._waiting.pop(number)[2], link.Unroutable(f"{it.exchange} {it.key}"))
                break

    def end(self, reason: str) -> None:
        self.closed = self.closed or reason
        self._give_up(time.monotonic(), link.PublishUnknown(reason), link.LinkDown(reason))

    def expire(self) -> None:
        """Tell whoever has had no confirm in time; to be called again and again."""
        late = link.PublishUnknown(f"no confirm in {self._seconds} s")
        self._give_up(time.monotonic() - self._seconds, late, late)

    def _give_up(self, until: float, sent: Exception, held: Exception) -> None:
        """Tell whoever waits since then: what was sent may have arrived, what was held never left."""
        numbers = [*takewhile(lambda number: self._waiting[number][0] <= until, self._waiting)]
        waiting = [self._waiting.pop(number) for number in numbers]
        unsent = [self._held.popleft() for _ in [*takewhile(lambda posted: posted[0] <= until, self._held)]]
        for posted, why in ((waiting, sent), (unsent, held)):
            for _, _, settled in posted:
                _tell(settled, why)


class Taker(HotChannel):
    """Hands out the deliveries of one channel and settles them, many in one write.

    Acks leave on the next turn of the loop, `patient` ones when 16 have come together or after 20 ms.
    """

    def __init__(self, tap: Tap, number: int, *, patient: bool = False) -> None:
        super().__init__(tap, number)
        # By tag, before it consumes: who is handed out what comes for it, and whether he settles it.
        self.consumers: dict[str, tuple[link.OnDelivery, bool]] = {}
        self._unsettled: dict[int, str] = {}
        self._acks: list[int] = []
        self._patience = PATIENCE_SECONDS if patient else 0.0
        self._timer: asyncio.Handle | None = None

    def forget(self, tag: str) -> None:
        """The queue of a consumer is gone; what it did not settle is settled."""
        self.consumers.pop(tag, None)
        for number in [number for number, of in self._unsettled.items() if of == tag]:
            self.settle(number, False)

    def arrive(self, method: Any, properties: Properties, body: bytes) -> None:
        number, tag, address = method.delivery_tag, method.consumer_tag, (method.exchange, method.routing_key)
        if tag in self.consumers:
            on_delivery, acks = self.consumers[tag]
            if acks:
                self._unsettled[number] = tag
            taken = link.Delivery(number, body, *address, method.redelivered, properties, self.settle)
            _tell(on_delivery, taken)

    def settle(self, number: int, give_back: bool) -> None:
        """Ack or give back, once; after the end of the channel it is delivered again."""
        if self._unsettled.pop(number, None) is None:
            return
        if give_back:  # at once: an ack of all below another one would settle it
            self._tap.write(marshal(commands.Basic.Nack(number, requeue=True), self._number))
            return
        self._acks.append(number)
        if len(self._acks) >= ACKS_TOGETHER:
            self.flush()
        elif self._timer is None:
            self._timer = self._tap.loop.call_later(self._patience, self.flush)

    def flush(self) -> None:
        """Let what is settled leave now: one frame for all below the oldest that is unsettled."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        acks, self._acks = self._acks, []
        oldest = next(iter(self._unsettled), 1 << 64)
        below = [number for number in acks if number < oldest]
        frames = [commands.Basic.Ack(max(below), multiple=True)] if below else []
        frames += [commands.Basic.Ack(number) for number in acks if number > oldest]
        self._tap.write(b"".join([marshal(each, self._number) for each in frames]))

    def end(self, reason: str) -> None:
        self._unsettled.clear()
        self._acks.clear()


@lru_cache(maxsize=1_000)
def _shape(
    channel: int, exchange: str, key: str, mandatory: bool, content_type: str, headers: Any,
    persistent: bool, correlation_id: str, reply_to: str, expiration_ms: int, type_: str, account: str,
) -> tuple[bytes, bytes]:  # fmt: skip
    """What messages of one address share: the frame of the method, and the properties."""
    properties = commands.Basic.Properties(
        content_type, None, headers, 2 if persistent else 1, None, correlation_id, reply_to,
        str(expiration_ms) if expiration_ms else None, None, None, type_, account,
    )  # fmt: skip
    return marshal(commands.Basic.Publish(0, exchange, key, mandatory), channel), properties.marshal()


@lru_cache(maxsize=1_000)
def _properties(data: bytes) -> Properties:
    read = _read(commands.Basic.Properties(), int.from_bytes(data[:2], "big"), data[2:])
    given = {name: getattr(read, name, read.message_type) for name in Properties.__struct_fields__}
    return Properties(**{name: value for name, value in given.items() if value})


def _read(into: Any, *data: Any) -> Any:
    """As much as can be read: what cannot came from elsewhere and must not end the connection."""
    try:
        into.unmarshal(*data)
    except (ValueError, struct.error) as error:
        log.warning("frame_unreadable", kind=into.name, error=str(error))
    return into


def _tell(whom: Any, what: Any) -> None:
    """Call back; one that fails to hear does not keep it from the others."""
    try:
        whom(what)
    except Exception:
        log.exception("callback_failed")
