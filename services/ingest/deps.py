"""What every handler of ingest works with."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from services.ingest.store import Store
from services.ingest.store.base import Descriptions
from services.ingest.times import Span
from shared.bus.routes import Call
from shared.contracts.base import Principal
from shared.vault import Vault

if TYPE_CHECKING:
    from services.ingest.settings import Settings

KEY_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
KEY_LENGTH = 16
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


def new_key() -> str:
    """A dataset key that ThingSpeak clients can hold: 16 characters, 82 bits."""
    number = secrets.randbelow(len(KEY_ALPHABET) ** KEY_LENGTH)
    characters = []
    for _ in range(KEY_LENGTH):
        number, digit = divmod(number, len(KEY_ALPHABET))
        characters.append(KEY_ALPHABET[digit])
    return "".join(characters)


@dataclass(frozen=True)
class Deps:
    """The store, who is calling and when, when the message was made, the vault, and chance."""

    store: Store
    caller: Principal
    now: datetime
    vault: Vault
    span: Span
    born: datetime = LONG_AGO
    new_id: Callable[[], UUID] = uuid4
    new_key: Callable[[], str] = new_key


def deps_of(call: Call, settings: Settings, vault: Vault, descriptions: Descriptions) -> Deps:
    """The `Deps` of one run of a handler."""
    oldest = datetime.combine(settings.oldest_reading, time.min, UTC)
    newest = call.now + timedelta(hours=settings.newest_ahead_hours)
    return Deps(Store(call.db, descriptions), call.caller, call.now, vault, Span(oldest, newest), call.born)
