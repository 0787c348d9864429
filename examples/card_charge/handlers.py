"""Message in, Done out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from examples.card_charge.contracts import CardCharged, ChargeCard, Charged
from shared.bus.routes import Done, Routes

routes = Routes("shop")


class Provider(Protocol):
    """A payment provider that knows a charge by its key, as real ones do."""

    async def charge(self, key: UUID, card: str, cents: int) -> str:
        """The receipt; the same for the same key."""


@dataclass(frozen=True)
class Deps:
    """What the handler works with: the id of its frame, and the outside world."""

    frame: UUID
    provider: Provider


@routes.command(ChargeCard, inbox=False)
async def charge_card(command: ChargeCard, deps: Deps) -> Done[Charged]:
    """Slow, and holds no transaction meanwhile: a repeat is harmless because the provider knows the key."""
    receipt = await deps.provider.charge(deps.frame, command.card, command.cents)
    event = CardCharged(receipt=receipt, cents=command.cents)
    return Done(Charged(receipt=receipt, cents=command.cents), events=(event,))
