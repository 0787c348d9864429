"""Bytes on the wire: golden frames old and new, what is tolerated and what is malformed."""

from __future__ import annotations

from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.bus import codec
from shared.bus.codec import JSON, Frame, Malformed, Properties, ReplyFrame
from shared.bus.ids import keyed_id, uuid7
from shared.contracts.base import ANONYMOUS, Principal
from shared.contracts.submissions import RefusalBody

ID = UUID("01a1f8ec-2542-701a-be47-512f4a0277dc")
FULL = Frame(
    id=ID,
    topic="ingest.write_readings",
    kind="command",
    body=msgspec.Raw(b"\x81\xa1a\x01"),
    call=7,
    request_id="r-1",
    traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    principal=Principal(
        kind="user", id="u-1", via="s-1", project="p", scopes=("dataset:d:write",), roles=("administrator",)
    ),
    mode="wait",
    remaining_ms=10_000,
    sent_at=1_795_177_588_033,
    born=1_795_177_588_000,
    attempt=2,
    locale="de",
    client="127.0.0.1",
)
# Golden: a change of these bytes is a change of the wire. The header is complete; it grows by keys only.
GOLDEN_FULL = (
    "918fa26964c41001a1f8ec2542701abe47512f4a0277dca5746f706963b5696e676573742e77726974655f72656164696e"
    "6773a46b696e64a7636f6d6d616e64a4626f647981a16101a463616c6c07aa726571756573745f6964a3722d31ab747261"
    "6365706172656e74d93730302d30616637363531393136636434336464383434386562323131633830333139632d623761"
    "643662373136393230333333312d3031a97072696e636970616c86a46b696e64a475736572a26964a3752d31a3766961a3"
    "732d31a770726f6a656374a170a673636f70657391af646174617365743a643a7772697465a5726f6c657391ad61646d69"
    "6e6973747261746f72a46d6f6465a477616974ac72656d61696e696e675f6d73cd2710a773656e745f6174cf000001a1f8"
    "ec2541a4626f726ecf000001a1f8ec2520a7617474656d707402a66c6f63616c65a26465a6636c69656e74a93132372e30"
    "2e302e31"
)
GOLDEN_REPLY = "9183a26964c41001a1f8ec2542701abe47512f4a0277dca463616c6c07a4626f647981a5636f756e7401"


def test_the_full_header_is_these_bytes() -> None:
    assert codec.join([codec.encode(FULL)]).hex() == GOLDEN_FULL
    assert codec.decode_frames(bytes.fromhex(GOLDEN_FULL), "", Properties()) == [FULL]


def test_a_reply_is_these_bytes() -> None:
    reply = ReplyFrame(id=ID, call=7, body=msgspec.Raw(msgspec.msgpack.encode({"count": 1})))
    assert codec.join([codec.encode(reply)]).hex() == GOLDEN_REPLY
    assert codec.decode_replies(bytes.fromhex(GOLDEN_REPLY), Properties()) == [reply]


def test_an_old_frame_without_the_newer_keys_is_understood() -> None:
    old = msgspec.msgpack.encode([{"id": ID.bytes, "topic": "a.b", "kind": "event", "body": {}}])
    (frame,) = codec.decode_frames(old, "", Properties())
    assert (frame.id, frame.attempt, frame.mode, frame.principal) == (ID, 1, "queued", ANONYMOUS)


def test_a_new_frame_with_keys_we_do_not_know_is_understood() -> None:
    known = msgspec.msgpack.decode(bytes.fromhex(GOLDEN_FULL))[0]
    known["id"] = ID.bytes
    newer = {**known, "tenant": "x", "principal": {**known["principal"], "device": "y"}}
    assert codec.decode_frames(msgspec.msgpack.encode([newer]), "", Properties()) == [FULL]


@given(st.binary(max_size=200))
def test_bytes_that_are_no_frames_are_malformed_and_nothing_else(body: bytes) -> None:
    for content_type in ("application/msgpack", JSON):
        try:
            codec.decode_frames(body, "a.b", Properties(content_type=content_type, type="command"))
        except Malformed:
            continue


@pytest.mark.parametrize("count", [0, 1, 15, 16, 255, 256])
def test_joined_frames_are_a_msgpack_list(count: int) -> None:
    frames = [Frame(id=uuid7(), topic="a.b", kind="event") for _ in range(count)]
    joined = codec.join([codec.encode(frame) for frame in frames])
    assert codec.decode_frames(joined, "", Properties()) == frames


def test_deep_nesting_is_malformed() -> None:
    properties = Properties(content_type=JSON, type="command", message_id="m")
    with pytest.raises(Malformed):
        codec.decode_frames(b"[" * 200_000, "a.b", properties)


def test_json_with_amqp_properties_is_one_frame() -> None:
    properties = Properties(content_type=JSON, type="command", message_id="m-1", user_id="weather")
    (frame,) = codec.decode_frames(b'{"a": 1}', "weather.tell", properties)
    assert (frame.topic, frame.kind, bytes(frame.body)) == ("weather.tell", "command", b"\x81\xa1a\x01")
    assert frame.id == keyed_id(Principal(kind="service", id="weather"), "weather.tell", "m-1")
    assert frame.principal == Principal(kind="service", id="weather")


def test_a_json_command_without_message_id_or_kind_is_malformed() -> None:
    for properties in (Properties(content_type=JSON, type="command"), Properties(content_type=JSON)):
        with pytest.raises(Malformed):
            codec.decode_frames(b"{}", "a.b", properties)


def test_a_json_reply_is_paired_by_the_call_number() -> None:
    properties = Properties(content_type=JSON, correlation_id="7", headers={"status": 404})
    (reply,) = codec.decode_replies(b'{"code": "not_found", "detail": "no"}', properties)
    assert (reply.call, reply.status) == (7, 404)
    assert reply.refusal == RefusalBody(status=404, code="not_found", detail="no")
    with pytest.raises(Malformed):
        codec.decode_replies(b"{}", Properties(content_type=JSON, correlation_id="x"))


def test_an_event_of_a_command_has_the_same_id_every_time_and_another_for_every_index() -> None:
    ids = [codec.event_id(ID, index) for index in (0, 1, 0)]
    assert ids[0] == ids[2] != ids[1]
    assert all(made.hex[0] == "f" and made.version == 5 for made in ids)


def test_a_body_hash_tells_topics_and_bodies_apart() -> None:
    other_body = msgspec.structs.replace(FULL, body=msgspec.Raw(b"\x80"))
    other_topic = msgspec.structs.replace(FULL, topic="ingest.other")
    hashes = {codec.body_hash(frame) for frame in (FULL, other_body, other_topic)}
    assert len(hashes) == 3
    assert codec.body_hash(msgspec.structs.replace(FULL, attempt=9, call=1)) == codec.body_hash(FULL)
