"""Taking from queues on one channel: deliveries handed out as they come, settled together."""

from __future__ import annotations

import asyncio
import struct

import msgspec
import structlog

from shared.bus.amqp import (
    ACK,
    DELIVER,
    END,
    HEADER,
    METHOD,
    NACK,
    NUMBER_AND_BITS,
    ReadTable,
    Tap,
    read_properties,
    read_text,
)
from shared.bus.codec import Properties
from shared.bus.link import OnDelivery

log = structlog.get_logger()

MULTIPLE, REQUEUE = 1, 2
# Each ack of a quorum queue is an entry of its log, synced to disk as a message is, and the next message
# waits for that. Acks can wait: what is delivered again after a crash is known.
ACKS_TOGETHER, PATIENCE_SECONDS = 16, 0.02
_settling = struct.Struct(">BHI4sQBB")
_size = struct.Struct(">Q")


class Arrived(msgspec.Struct, gc=False, eq=False):
    """One message of a queue; settling after the end of its channel does nothing: it is delivered again."""

    channel: Taker
    number: int
    body: bytes
    exchange: str
    routing_key: str
    redelivered: bool
    properties: Properties

    def ack(self) -> None:
        """Settle it."""
        self.channel.settle(self.number, give_back=False)

    def requeue(self) -> None:
        """Give it back."""
        self.channel.settle(self.number, give_back=True)


class Taker:
    """Hands out the deliveries of one channel and settles them, many in one write.

    Acks leave on the next turn of the loop, `patient` ones when 16 have come together or after 20 ms.
    """

    def __init__(self, tap: Tap, number: int, read_table: ReadTable, *, patient: bool = False) -> None:
        self.closed = False
        self._tap = tap
        self._channel = number
        self._read_table = read_table
        self._consumers: dict[bytes, tuple[OnDelivery, bool]] = {}
        self._unsettled: dict[int, bytes] = {}
        self._acks: list[int] = []
        self._requeues: list[int] = []
        self._patience = PATIENCE_SECONDS if patient else 0.0
        self._timer: asyncio.Handle | None = None
        self._coming: tuple[bytes, int, bool, str, str] = (b"", 0, False, "", "")
        self._properties = Properties()
        self._pieces: list[bytes] = []
        self._left = 0
        tap.attach(number, self)

    def add(self, tag: str, on_delivery: OnDelivery, *, acks: bool) -> None:
        """Hand out what comes for a consumer; call before it consumes."""
        self._consumers[tag.encode()] = (on_delivery, acks)

    def forget(self, tag: str) -> None:
        """The queue of a consumer is gone; what it did not settle is settled."""
        gone = tag.encode()
        self._consumers.pop(gone, None)
        for number in [number for number, of in self._unsettled.items() if of == gone]:
            self.settle(number, give_back=False)

    def take(self, kind: int, data: bytes, start: int, stop: int) -> bool:
        """As `HotChannel.take`."""
        if kind == METHOD:
            if data[start : start + 4] != DELIVER:
                return False
            self._begin(data, start + 4)
        elif kind == HEADER:
            self._left = _size.unpack_from(data, start + 4)[0]
            self._properties = read_properties(data, start + 12, self._read_table)
            if not self._left:
                self._hand_out(b"")
        else:
            self._add_piece(data[start:stop])
        return True

    def _begin(self, data: bytes, at: int) -> None:
        tag_ends = at + 1 + data[at]
        number, redelivered = NUMBER_AND_BITS.unpack_from(data, tag_ends)
        exchange, key_at = read_text(data, tag_ends + 9)
        key, _ = read_text(data, key_at)
        self._coming = (data[at + 1 : tag_ends], number, redelivered == 1, exchange, key)

    def _add_piece(self, piece: bytes) -> None:
        self._left -= len(piece)
        if self._pieces or self._left > 0:
            self._pieces.append(piece)
        if self._left <= 0:
            pieces, self._pieces = self._pieces, []
            self._hand_out(b"".join(pieces) if pieces else piece)

    def _hand_out(self, body: bytes) -> None:
        tag, number, redelivered, exchange, key = self._coming
        found = self._consumers.get(tag)
        if found is None:
            return
        on_delivery, acks = found
        if acks:
            self._unsettled[number] = tag
        try:
            on_delivery(Arrived(self, number, body, exchange, key, redelivered, self._properties))
        except Exception:
            log.exception("delivery_not_taken", routing_key=key)

    def settle(self, number: int, *, give_back: bool) -> None:
        """Ack or give back, once."""
        if self._unsettled.pop(number, None) is None:
            return
        if give_back:
            self._requeues.append(number)
            self.flush()
            return
        self._acks.append(number)
        if len(self._acks) >= ACKS_TOGETHER:
            self.flush()
        elif self._timer is None:
            loop = self._tap.loop
            later = self._patience
            self._timer = loop.call_later(later, self.flush) if later else loop.call_soon(self.flush)

    def flush(self) -> None:
        """Let what is settled leave now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        acks, self._acks = self._acks, []
        requeues, self._requeues = self._requeues, []
        if self.closed:
            return
        frames = [self._settling(NACK, number, REQUEUE) for number in requeues]
        # One frame settles all below the oldest that is still unsettled: what was given back left before.
        oldest = next(iter(self._unsettled), None)
        below = [number for number in acks if oldest is None or number < oldest]
        if below:
            frames.append(self._settling(ACK, max(below), MULTIPLE))
        if len(below) < len(acks):
            frames += [self._settling(ACK, number, 0) for number in acks if number > (oldest or 0)]
        self._tap.write(b"".join(frames))

    def _settling(self, method: bytes, number: int, bits: int) -> bytes:
        return _settling.pack(METHOD, self._channel, 13, method, number, bits, END)

    def resume(self) -> None:
        """Settling is never held back."""

    def end(self, reason: str) -> None:
        """As `HotChannel.end`."""
        self.closed = True
        self._unsettled.clear()
