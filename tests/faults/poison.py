"""A reading whose handler raises, or ends its process, and what became of it."""

from __future__ import annotations

import base64
import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from shared.bus import codec
from shared.bus.codec import Properties
from tests.faults.scene import Scene
from tests.faults.wire import Answer, Wire

POISON = {"FAULTS_POISON": "on", "FAULTS_POISON_BOOK": "{directory}/poison"}


@dataclass(frozen=True)
class Poison:
    """One that was sent: the id and the trace it was sent with, and how it was answered."""

    request_id: str
    trace: str
    answer: Answer


@dataclass(frozen=True)
class Letter:
    """A dead letter, as far as somebody who looks for a reason needs it."""

    request_id: str
    trace: str
    reason: str
    error: str


async def send_poison(scene: Scene, kind: Literal["raises", "kills"], prefer: str = "wait=10") -> Poison:
    """With a trace of its own."""
    target = scene.devices.target
    trace = secrets.token_hex(16)
    name = f"poison-{kind}-{trace[:12]}"
    headers = {
        "X-API-Key": target.write_key,
        "Prefer": prefer,
        "X-Request-Id": name,
        "Idempotency-Key": name,
        "traceparent": f"00-{trace}-{secrets.token_hex(8)}-01",
    }
    with Wire(scene.posthouse.url) as wire:
        path = f"/v1/datasets/{target.id}/readings"
        return Poison(name, trace, await wire.ask("POST", path, {"values": {"n": -1}}, headers))


def runs_of(scene: Scene, sent: Sequence[Poison], *, alone: bool) -> list[int]:
    """How often each was run: by itself, or at all."""
    text = (scene.directory / "poison").read_text()
    runs = Counter(name for name, _, together in map(_line, text.splitlines()) if together == 1 or not alone)
    return [runs[each.request_id] for each in sent]


def _line(text: str) -> tuple[str, str, int]:
    name, space, together = text.partition(" ")
    return name, space, int(together)


async def letters(scene: Scene) -> list[Letter]:
    """All of ingest's dead letters, a frame each."""
    found = []
    for message in await scene.dead_letters():
        headers = message["properties"].get("headers", {})
        frames = codec.decode_frames(base64.b64decode(message["payload"]), "", Properties())
        for frame in frames:
            trace = frame.traceparent.split("-")[1] if frame.traceparent else ""
            letter = Letter(frame.request_id, trace, headers.get("reason", ""), headers.get("error", ""))
            found.append(letter)
    return found


def told(sent: Sequence[Poison], found: Sequence[Letter], reason: str) -> int:
    """How many lie there once, with this reason, their request and their trace."""
    times = Counter((one.request_id, one.trace) for one in found if one.reason == reason)
    return sum(times[each.request_id, each.trace] == 1 for each in sent)
