"""Faults that only the process itself can time: death between commit and ack, an inbox that forgets."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from shared.bus.inbox import PostgresInbox, PostgresUnit


def arm() -> None:
    """Change the inbox of this process as the environment says."""
    if os.environ.get("FAULTS_INBOX") == "off":
        _forget_everything()
    if trigger := os.environ.get("FAULTS_KILL_FILE"):
        _die_after_commits(Path(trigger))


def _die_after_commits(trigger: Path) -> None:
    """While the file is there, count commits; after as many as it says, take it away and die.

    The death comes when the server has confirmed the commit and before any reply or ack has left.
    """
    plain, seen = PostgresInbox.unit, 0

    @asynccontextmanager
    async def unit(self: PostgresInbox) -> AsyncIterator[PostgresUnit]:
        nonlocal seen
        async with plain(self) as opened:
            yield opened
        with suppress(FileNotFoundError):
            wanted = int(trigger.read_text())
            seen += 1
            if seen >= wanted:
                trigger.unlink()  # of several processes one gets here
                os.kill(os.getpid(), signal.SIGKILL)

    PostgresInbox.unit = unit  # type: ignore[method-assign]


def _forget_everything() -> None:
    async def find(self: Any, ids: Any) -> dict[Any, Any]:
        return {}

    async def keep(self: Any, entries: Any) -> set[Any]:
        return {entry.id for entry in entries}

    async def lock(self: Any, ids: Any) -> set[Any]:
        return set(ids)

    async def record(self: Any, entries: Any) -> None:
        return None

    PostgresInbox.find = find  # type: ignore[method-assign]
    PostgresInbox.keep = keep  # type: ignore[method-assign]
    PostgresUnit.lock = lock  # type: ignore[method-assign]
    PostgresUnit.record = record  # type: ignore[method-assign]
