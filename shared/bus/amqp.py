"""The AMQP 0-9-1 frames all traffic is made of: read and written here, without a task or a timer for each.

Connections, channels, declarations and heartbeats stay with the client library: a `Tap` sits between it and
the socket, keeps the frames of messages and confirms for itself and hands every other frame on unchanged.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Protocol, cast

from shared.bus.codec import Properties

METHOD, HEADER, BODY = 1, 2, 3
END = 0xCE
HEARTBEAT = bytes((8, 0, 0, 0, 0, 0, 0, END))
PUBLISH, RETURN, DELIVER, ACK, NACK = (bytes((0, 60, 0, method)) for method in (40, 50, 60, 80, 120))
CHANNEL_CLOSE, CHANNEL_CLOSE_OK = bytes((0, 20, 0, 40)), bytes((0, 20, 0, 41))
CONNECTION_CLOSE = bytes((0, 10, 0, 50))
FED_SECONDS = 1.0
# Every frame begins with its kind, its channel and the size of its payload, and ends with 0xCE.
FRAME = struct.Struct(">BHI")
NUMBER_AND_BITS = struct.Struct(">QB")
_short = struct.Struct(">H")
_long = struct.Struct(">I")

ReadTable = Callable[[bytes], Mapping[str, Any]]


class HotChannel(Protocol):
    """What a tap asks of whoever takes the frames of a channel."""

    def take(self, kind: int, data: bytes, start: int, stop: int) -> bool:
        """Take a frame whose payload is `data[start:stop]`; False for one that is not ours."""

    def resume(self) -> None:
        """The socket takes bytes again."""

    def end(self, reason: str) -> None:
        """The channel is no more; called at least once."""


class Tap(asyncio.StreamReaderProtocol):
    """Splits what the broker sends into frames, each for the channel that takes it or for the reader."""

    def __init__(self, reader: asyncio.StreamReader, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(reader, loop=loop)
        self.loop = loop
        self.paused = False
        self._transport: asyncio.Transport | None = None
        self._channels: dict[int, HotChannel] = {}
        self._rest = b""
        self._fed = loop.time()

    def attach(self, number: int, channel: HotChannel) -> None:
        """Give a channel its frames until it is closed."""
        self._channels[number] = channel

    def write(self, frames: bytes) -> None:
        """Send whole frames; after the end of the connection this does nothing."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frames)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        if self._rest:
            data = self._rest + data
        at, end = 0, len(data)
        channels = self._channels
        hot = False
        while end - at >= 8:
            kind, number, size = FRAME.unpack_from(data, at)
            stop = at + size + 7
            if stop >= end:
                break
            channel = channels.get(number)
            if channel is not None and data[stop] == END and channel.take(kind, data, at + 7, stop):
                hot = True
            else:
                self._pass_on(number, data[at : stop + 1])
            at = stop + 1
        self._rest = data[at:]
        if hot:
            self._feed_heartbeat()

    def _pass_on(self, number: int, frame: bytes) -> None:
        method = frame[7:11] if frame[0] == METHOD else b""
        if method == CONNECTION_CLOSE and number == 0:
            self._end_all(_reason(frame))
        elif method in (CHANNEL_CLOSE, CHANNEL_CLOSE_OK) and number in self._channels:
            self._channels.pop(number).end(_reason(frame) if method == CHANNEL_CLOSE else "closed")
        super().data_received(frame)

    def _feed_heartbeat(self) -> None:
        """Frames taken here are a sign of life too; a broker that sends them sends no heartbeats."""
        now = self.loop.time()
        if now - self._fed > FED_SECONDS:
            self._fed = now
            super().data_received(HEARTBEAT)

    def eof_received(self) -> bool | None:
        """Called by the loop."""
        rest, self._rest = self._rest, b""
        if rest:
            super().data_received(rest)
        return super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        super().connection_lost(exc)
        self._end_all(f"{type(exc).__name__}: {exc}" if exc else "the connection was closed")

    def _end_all(self, reason: str) -> None:
        channels, self._channels = self._channels, {}
        for channel in channels.values():
            channel.end(reason)

    def pause_writing(self) -> None:
        """Called by the loop."""
        self.paused = True
        super().pause_writing()

    def resume_writing(self) -> None:
        """Called by the loop."""
        self.paused = False
        super().resume_writing()
        for channel in list(self._channels.values()):
            channel.resume()


def read_text(data: bytes, at: int) -> tuple[str, int]:
    """A short string and where it ends; what is no UTF-8 came from elsewhere and must not end us."""
    end = at + 1 + data[at]
    return str(data[at + 1 : end], "utf-8", "replace"), end


def _reason(frame: bytes) -> str:
    """What a close frame says: a number and a text."""
    return f"{_short.unpack_from(frame, 11)[0]} {read_text(frame, 13)[0]}"


TEXT, TABLE = 0, -1
# Name and size of every property, from the highest bit; those without a name mean nothing to us.
_PROPERTIES = (
    ("content_type", TEXT),
    ("", TEXT),
    ("headers", TABLE),
    ("", 1),
    ("", 1),
    ("correlation_id", TEXT),
    ("reply_to", TEXT),
    ("", TEXT),
    ("message_id", TEXT),
    ("", 8),
    ("type", TEXT),
    ("user_id", TEXT),
)


@lru_cache(maxsize=256)
def _present(flags: int) -> tuple[tuple[str, int], ...]:
    return tuple(each for bit, each in enumerate(_PROPERTIES) if flags & (0x8000 >> bit))


def read_properties(data: bytes, at: int, read_table: ReadTable) -> Properties:
    """The properties that mean something to us, from the flags at `at` on."""
    given: dict[str, Any] = {}
    flags = _short.unpack_from(data, at)[0]
    at += 2
    for name, size in _present(flags):
        if size == TEXT:
            text, at = read_text(data, at)
            if name and text:
                given[name] = text
        elif size == TABLE:
            end = at + 4 + _long.unpack_from(data, at)[0]
            given[name] = read_table(data[at:end])
            at = end
        else:
            at += size
    return Properties(**given)
