"""Ports of instances that start side by side, and of those still stopping: no two may choose the same."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

from deploy.local.ports import OWN_RANGE, is_free

NAMES = (
    "web", "postgres", "redis", "amqp", "management", "prometheus", "mqtt", "distribution", "epmd", "auth",
    "chat", "ingest", "ingest-2", "worker", "gateway", "gateway-2",
)  # fmt: skip


def _blocks() -> Iterator[range]:
    first = random.randrange(0, len(OWN_RANGE), len(NAMES))
    while True:
        first = (first + len(NAMES)) % (len(OWN_RANGE) - len(NAMES))
        yield OWN_RANGE[first : first + len(NAMES)]


_next_blocks = _blocks()


def reserve(directory: Path) -> int:
    """Write down ports of its own for the instance that will lie there; answers the one of the web."""
    ports = next(block for block in _next_blocks if all(map(is_free, block)))
    run = directory / "run"
    run.mkdir(mode=0o700, parents=True, exist_ok=True)
    (run / "ports.json").write_text(json.dumps(dict(zip(NAMES, ports, strict=True))))
    return ports[0]
