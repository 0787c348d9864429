"""Frames of the first version are read for ever: a contract changes by added fields with defaults only."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
import pytest

from shared.contracts import ingest
from shared.contracts.base import Message
from shared.contracts.ingest import (
    CorrectReading,
    CreateDataset,
    DatasetKeyRevoked,
    DeleteReadings,
    EntryStored,
    ExportReadings,
    ListReadings,
    Reading,
    ReadingRejected,
    ReadingsStored,
    ReadingsWritten,
    ResolveKey,
    VariableSpec,
    WriteReadings,
)

ID = UUID(int=7)
AT = datetime(2026, 11, 20, 12, 30, 0, 1, tzinfo=UTC)
FIRST_VERSION: list[tuple[Any, str]] = [
    (
        WriteReadings(
            dataset_id=ID, format="csv", body=b"at,a", strict=True, timezone="UTC", source="f", position=9
        ),
        "87aa646174617365745f6964d92430303030303030302d303030302d303030302d303030302d30303030303030"
        "3030303037a6666f726d6174a3637376a4626f6479c40461742c61a6737472696374c3a874696d657a6f6e65a3"
        "555443a6736f75726365a166a8706f736974696f6e09",
    ),
    (
        ReadingsWritten(
            entries=(EntryStored(entry=1, at=AT), EntryStored(entry=1, at=AT, duplicate=True)),
            rejected=(ReadingRejected(index=2, code="nul", message="m"),),
            skipped=3,
        ),
        "83a7656e74726965739282a5656e74727901a26174d7ff00000fa06b003d4883a5656e74727901a26174d7ff00"
        "000fa06b003d48a96475706c6963617465c3a872656a65637465649183a5696e64657802a4636f6465a36e756c"
        "a76d657373616765a16da7736b697070656403",
    ),
    (
        ReadingsStored(dataset_id=ID, first=1, last=2, last_at=AT),
        "84aa646174617365745f6964d92430303030303030302d303030302d303030302d303030302d30303030303030"
        "3030303037a5666972737401a46c61737402a76c6173745f6174d7ff00000fa06b003d48",
    ),
    (
        CreateDataset(name="n", public=True, variables=(VariableSpec(tag="a", unit="C", field=3),)),
        "83a46e616d65a16ea67075626c6963c3a97661726961626c65739183a3746167a161a4756e6974a143a56669656c6403",
    ),
    (
        ListReadings(dataset_id=ID, start=AT, limit=5, order="asc", variables=("a",)),
        "85aa646174617365745f6964d92430303030303030302d303030302d303030302d303030302d30303030303030"
        "3030303037a57374617274d7ff00000fa06b003d48a56c696d697405a56f72646572a3617363a9766172696162"
        "6c657391a161",
    ),
    (
        ExportReadings(dataset_id=ID, format="ndjson", end=AT, time_column="date"),
        "84aa646174617365745f6964d92430303030303030302d303030302d303030302d303030302d30303030303030"
        "3030303037a6666f726d6174a66e646a736f6ea3656e64d7ff00000fa06b003d48ab74696d655f636f6c756d6e"
        "a464617465",
    ),
    (
        Reading(entry=1, at=AT, values={"a": 1, "b": 1.0, "c": "1.0", "d": None}, elevation=2.5),
        "84a5656e74727901a26174d7ff00000fa06b003d48a676616c75657384a16101a162cb3ff0000000000000a163"
        "a3312e30a164c0a9656c65766174696f6ecb4004000000000000",
    ),
    (
        CorrectReading(dataset_id=ID, entry=4, values=b'{"a": 22.50}'),
        "83aa646174617365745f6964d92430303030303030302d303030302d303030302d303030302d30303030303030"
        "3030303037a5656e74727904a676616c756573c40c7b2261223a2032322e35307d",
    ),
    (
        DeleteReadings(dataset_id=ID, end=AT),
        "82aa646174617365745f6964d92430303030303030302d303030302d303030302d303030302d30303030303030"
        "3030303037a3656e64d7ff00000fa06b003d48",
    ),
    (ResolveKey(digest=b"0123"), "81a6646967657374c40430313233"),
    (
        DatasetKeyRevoked(dataset_id=ID, digests=(b"0123",)),
        "82aa646174617365745f6964d92430303030303030302d303030302d303030302d303030302d30303030303030"
        "3030303037a76469676573747391c40430313233",
    ),
]


@pytest.mark.parametrize(("message", "frame"), FIRST_VERSION, ids=lambda case: type(case).__name__)
def test_a_frame_of_the_first_version_is_read(message: Any, frame: str) -> None:
    assert msgspec.msgpack.decode(bytes.fromhex(frame), type=type(message)) == message


@pytest.mark.parametrize(("message", "frame"), FIRST_VERSION, ids=lambda case: type(case).__name__)
def test_a_field_from_the_future_is_passed_over(message: Any, frame: str) -> None:
    later = msgspec.msgpack.decode(bytes.fromhex(frame)) | {"from_the_future": 1}
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(later), type=type(message)) == message


def test_every_message_names_its_topic_after_itself() -> None:
    messages = [
        one
        for one in vars(ingest).values()
        if isinstance(one, type) and issubclass(one, Message) and one.__module__ == ingest.__name__
    ]
    assert messages
    for message in messages:
        snake = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in message.__name__)
        assert message.topic == f"ingest.{snake.lstrip('_')}"


@pytest.mark.parametrize(
    "frame",
    [
        {"dataset_id": ID, "name": "a\0b"},
        {"dataset_id": ID, "name": ""},
        {"dataset_id": ID, "variables": [{"tag": "a\n"}]},
        {"dataset_id": ID, "variables": [{"tag": "a b"}]},
        {"dataset_id": ID, "variables": [{"tag": "a", "field": 65}]},
        {"dataset_id": ID, "variables": [{"tag": f"v{index}"} for index in range(65)]},
    ],
)
def test_a_description_that_cannot_be_kept_is_no_message(frame: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(msgspec.msgpack.encode(frame), type=ingest.ChangeDataset)


def test_a_time_without_offset_is_no_moment() -> None:
    frame = {"dataset_id": ID, "start": "2026-01-01T00:00:00"}
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(msgspec.msgpack.encode(frame), type=ListReadings)
