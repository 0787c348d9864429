"""Frame ids: uuid7 made at the door, or one id per caller, topic and idempotency key."""

from __future__ import annotations

import hashlib
import os
import time
from random import Random
from uuid import UUID

from shared.contracts.base import Principal

# An id names a frame and protects nothing. Asking the system for 10 bytes took 3 µs of every request.
_random = Random()
os.register_at_fork(after_in_child=_random.seed)


def uuid7(now_ms: int | None = None) -> UUID:
    """A UUIDv7 (RFC 9562): 48 bits of milliseconds, then 74 random bits."""
    moment = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    random = _random.getrandbits(74)
    high, low = random >> 62 & 0xFFF, random & (1 << 62) - 1
    return UUID(int=moment << 80 | 0x7 << 76 | high << 64 | 0b10 << 62 | low)


def born_ms(frame_id: UUID) -> int:
    """The milliseconds since 1970 a UUIDv7 begins with."""
    return frame_id.int >> 80


def names_of(caller: Principal) -> tuple[str, ...]:
    """What tells one caller from another wherever an answer is kept for who asked.

    The two keys of a dataset have one id: whoever may only read neither hears what was answered to a writer
    nor is answered first in a writer's place.
    """
    return caller.kind, caller.id, caller.project, *(s for s in caller.scopes if s.endswith(":read"))


def keyed_id(caller: Principal, topic: str, key: str) -> UUID:
    """A UUIDv8 of sha256(caller, topic, key), so that the same key from the same caller is the same frame.

    Its first nibble is f: the inbox keeps ids without a time in a partition of their own.
    """
    named = "\0".join((*names_of(caller), topic, key)).encode()
    value = int.from_bytes(hashlib.sha256(named).digest()[:16], "big")
    value = value & ~(0xF << 76) | 0x8 << 76
    value = value & ~(0b11 << 62) | 0b10 << 62
    return UUID(int=value | 0xF << 124)
