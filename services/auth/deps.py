"""What every handler of auth works with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Literal
from uuid import UUID

from services.auth.hashing import Hasher
from services.auth.leaked import is_leaked
from services.auth.store import Store
from services.auth.throttle import Throttle
from services.auth.tokens import Issuer, new_secret
from shared.bus.ids import uuid7
from shared.bus.routes import Call
from shared.contracts.base import Principal
from shared.vault import Vault

if TYPE_CHECKING:
    from services.auth.settings import Settings


@dataclass(frozen=True)
class Policy:
    """What the settings decide about accounts and sessions."""

    password_min_length: int = 15
    sign_up: Literal["open", "invitation", "closed"] = "invitation"
    session: timedelta = timedelta(days=7)
    session_most: timedelta = timedelta(days=90)
    signing_key: timedelta = timedelta(days=30)

    @classmethod
    def of(cls, settings: Settings) -> Policy:
        """As the settings say."""
        return cls(
            settings.password_min_length,
            settings.sign_up,
            timedelta(days=settings.session_days),
            timedelta(days=settings.session_most_days),
            timedelta(days=settings.signing_key_days),
        )


@dataclass(frozen=True)
class Tools:
    """What one process has one of."""

    vault: Vault
    hasher: Hasher
    issuer: Issuer
    throttle: Throttle
    policy: Policy = Policy()
    is_leaked: Callable[[str], bool] = is_leaked
    new_id: Callable[[], UUID] = uuid7
    new_secret: Callable[[], str] = new_secret


@dataclass(frozen=True)
class Deps:
    """The store, who is calling from where and when, and the tools."""

    store: Store
    caller: Principal
    now: datetime
    client: str
    tools: Tools

    def unsealed(self, sealed: bytes, context: str) -> str:
        """A secret of a message; empty when none was given."""
        return self.tools.vault.unseal(sealed, context) if sealed else ""


def deps_of(call: Call, tools: Tools) -> Deps:
    """The `Deps` of one run of a handler."""
    return Deps(Store(call.db), call.caller, call.now, call.client, tools)
