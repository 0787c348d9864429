"""What crosses the wire to and from shop."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from shared.contracts.base import Command, Event


class Charged(Struct, frozen=True, kw_only=True):
    """The card was charged; `receipt` is the payment provider's."""

    receipt: str
    cents: int


class ChargeCard(Command[Charged], topic="shop.charge_card"):
    """Charge a card once: the frame id goes to the provider as its idempotency key."""

    card: Annotated[str, Meta(min_length=4, max_length=64)]
    cents: Annotated[int, Meta(ge=1, le=1_000_000)]


class CardCharged(Event, topic="shop.card_charged"):
    """A charge went through; sockets of its customer may show it."""

    receipt: str
    cents: int
