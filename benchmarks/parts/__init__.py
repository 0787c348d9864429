"""The parts of a run, in their order; each has `run(stage)` and says about how long it takes."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType

from benchmarks.parts import (
    bulk,
    command,
    export,
    growth,
    ingest,
    noise,
    overload,
    query,
    reply_queue,
    rest,
    write,
)

PARTS: Mapping[str, ModuleType] = {
    "noise": noise,
    "rest": rest,
    "query": query,
    "command": command,
    "write": write,
    "ingest": ingest,
    "bulk": bulk,
    "reply-queue": reply_queue,
    "overload": overload,
    "export": export,
    "growth": growth,
}
"""Those that fill the tables come last, so that nobody is measured on a full disk cache of another's rows."""
TOGETHER = {"rpc": ("query", "command")}
"""Names for several at once."""
