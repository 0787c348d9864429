"""Frames to bytes and back: msgpack lists of maps between us, plain JSON from elsewhere."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal
from uuid import NAMESPACE_OID, UUID

import msgspec

from shared.bus.ids import keyed_id, uuid7
from shared.contracts.base import ANONYMOUS, Message, Principal
from shared.contracts.submissions import RefusalBody

Kind = Literal["command", "query", "event", "log"]
Mode = Literal["wait", "queued"]
MSGPACK, JSON = "application/msgpack", "application/json"
MOST_FRAMES = 256
MOST_BYTES = 256 << 10


class Frame(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One message with its header, a msgpack map with these keys; unknown keys are ignored.

    `id` is the one identity that dedupes (16 bytes); `call` is echoed in the reply and pairs it with the
    request. With mode `wait` somebody waits `remaining_ms` from `sent_at` (ms since 1970); `queued` never
    expires. `born` is when the message was accepted at the door (ms since 1970), `attempt` counts from 1.
    """

    id: UUID
    topic: str
    kind: Kind
    body: msgspec.Raw = msgspec.Raw(b"\x80")
    call: int = 0
    request_id: str = ""
    traceparent: str = ""
    principal: Principal = ANONYMOUS
    mode: Mode = "queued"
    remaining_ms: int = 0
    sent_at: int = 0
    born: int = 0
    attempt: int = 1
    locale: str = ""
    client: str = ""

    def seconds_left(self, now: float) -> float | None:
        """Seconds until nobody waits any more; None when it never expires. `now` in seconds since 1970."""
        if self.mode != "wait":
            return None
        return (self.sent_at + self.remaining_ms) / 1000 - now


class ReplyFrame(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One reply: `status` 200 with `body`, else `refusal`; a stream has parts 0 to the `last`."""

    id: UUID
    call: int = 0
    status: int = 200
    body: msgspec.Raw = msgspec.Raw(b"\xc0")
    refusal: RefusalBody | None = None
    part: int = 0
    last: bool = True


class Properties(msgspec.Struct, frozen=True, kw_only=True):
    """The AMQP properties of a delivery that mean something to us."""

    content_type: str = MSGPACK
    type: str = ""
    message_id: str = ""
    correlation_id: str = ""
    reply_to: str = ""
    user_id: str = ""
    headers: Mapping[str, Any] = {}


class Malformed(Exception):
    """The body is not what its content type says; nothing of it was executed."""


_encoder = msgspec.msgpack.Encoder(uuid_format="bytes")
_frames = msgspec.msgpack.Decoder(list[Frame])
_replies = msgspec.msgpack.Decoder(list[ReplyFrame])
encode = _encoder.encode


def body_of(message: Message) -> msgspec.Raw:
    """A contract as a frame's body."""
    return msgspec.Raw(_encoder.encode(message))


def join(encoded: Sequence[bytes]) -> bytes:
    """Frames that are encoded already, as one msgpack list (at most 65,535)."""
    count = len(encoded)
    head = bytes((0x90 | count,)) if count < 16 else b"\xdc" + count.to_bytes(2, "big")
    return head + b"".join(encoded)


def decode_frames(body: bytes, routing_key: str, properties: Properties) -> list[Frame]:
    """The frames of a delivery; raises Malformed."""
    try:
        if properties.content_type == JSON:
            return [_frame_from_json(body, routing_key, properties)]
        return _frames.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Malformed(str(error)) from error


def decode_replies(body: bytes, properties: Properties) -> list[ReplyFrame]:
    """The replies of a delivery; raises Malformed."""
    try:
        if properties.content_type == JSON:
            return [_reply_from_json(body, properties)]
        return _replies.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Malformed(str(error)) from error


def reply_as_json(reply: ReplyFrame) -> bytes:
    """The body of a reply for a requester that spoke JSON: the reply itself, or the refusal."""
    if reply.refusal is not None:
        return msgspec.json.encode(reply.refusal)
    return msgspec.json.encode(msgspec.msgpack.decode(reply.body))


def body_hash(frame: Frame) -> bytes:
    """16 bytes that tell one body from another under the same frame id."""
    return hashlib.sha256(b"%b\0%b" % (frame.topic.encode(), frame.body)).digest()[:16]


def event_id(command: UUID, index: int) -> UUID:
    """The frame id of a command's event: uuid5(NAMESPACE_OID, "<command id>/<index>") with a first nibble f.

    The nibble sends it to the inbox partition of ids that carry no time.
    """
    named = b"%b%b/%d" % (NAMESPACE_OID.bytes, str(command).encode(), index)
    value = int.from_bytes(hashlib.sha1(named, usedforsecurity=False).digest()[:16], "big")
    value = value & ~(0xF << 76) | 0x5 << 76
    value = value & ~(0b11 << 62) | 0b10 << 62
    return UUID(int=value | 0xF << 124)


def _frame_from_json(body: bytes, routing_key: str, properties: Properties) -> Frame:
    kinds: tuple[Kind, ...] = ("command", "query", "event", "log")
    kind = next((kind for kind in kinds if kind == properties.type), None)
    if kind is None:
        raise Malformed("the AMQP property type must be command, query or event")
    return Frame(
        id=_id_of(properties, routing_key, kind),
        topic=routing_key,
        kind=kind,
        body=msgspec.Raw(msgspec.msgpack.encode(msgspec.json.decode(body))),
        traceparent=str(properties.headers.get("traceparent", "")),
        request_id=str(properties.headers.get("request_id", properties.message_id)),
        principal=Principal(kind="service", id=properties.user_id),
    )


def _id_of(properties: Properties, topic: str, kind: Kind) -> UUID:
    if not properties.message_id:
        if kind == "command":
            raise Malformed(
                "a command needs the AMQP property message_id: it is what makes a repeat harmless"
            )
        return uuid7()
    with suppress(ValueError):
        given = UUID(properties.message_id)
        if given.version == 7:
            return given
    return keyed_id(Principal(kind="service", id=properties.user_id), topic, properties.message_id)


def _reply_from_json(body: bytes, properties: Properties) -> ReplyFrame:
    if not properties.correlation_id.isdigit():
        raise Malformed("correlation_id must be the call number of the request")
    content = msgspec.json.decode(body)
    status = int(properties.headers.get("status", 200))
    refusal = None
    if status >= 400:
        refusal = msgspec.convert({"code": "refused", **content, "status": status}, RefusalBody)
    return ReplyFrame(
        id=UUID(int=0),
        call=int(properties.correlation_id),
        status=status,
        body=msgspec.Raw(msgspec.msgpack.encode(content)),
        refusal=refusal,
        part=int(properties.headers.get("part", 0)),
        last=bool(properties.headers.get("last", True)),
    )
