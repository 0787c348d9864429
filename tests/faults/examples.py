"""A valid message of any contract, made from its types: the least that can be decoded."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
from msgspec import inspect

from shared.bus.codec import body_of
from shared.contracts.base import Message

VALUES: dict[type[inspect.Type], Any] = {
    inspect.BoolType: False,
    inspect.BytesType: b"x",
    inspect.DateTimeType: datetime(2026, 11, 20, tzinfo=UTC),
    inspect.FloatType: 1.0,
    inspect.NoneType: None,
    inspect.UUIDType: UUID(int=0),
}


def example(kind: type[Message]) -> Message:
    """With a value for each required field."""
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType)
    made = kind(**_fields(info))
    return msgspec.msgpack.decode(body_of(made), type=kind)


def _fields(info: inspect.StructType) -> dict[str, Any]:
    return {one.name: _value(one.type) for one in info.fields if one.required}


def _value(info: inspect.Type) -> Any:
    if isinstance(info, inspect.Metadata):
        return _value(info.type)
    if isinstance(info, inspect.StructType):
        return info.cls(**_fields(info))
    if isinstance(info, inspect.LiteralType):
        return info.values[0]
    if isinstance(info, inspect.UnionType):
        return _value(info.types[0])
    if isinstance(info, inspect.StrType):
        return "x" * max(1, info.min_length or 0)
    if isinstance(info, inspect.IntType):
        return max(1, info.ge or 0)
    if isinstance(info, inspect.VarTupleType):
        return tuple(_value(info.item_type) for _ in range(info.min_length or 0))
    return VALUES[type(info)]
