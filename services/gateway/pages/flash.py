"""What the next page says once: in a cookie of a minute that only we can write."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from typing import Literal, NamedTuple

import msgspec

from shared.vault import SealBroken, Vault

NAME = "posthouse_told"
SECONDS = 60
CONTEXT = "gateway.flash"
Kind = Literal["success", "error", "note"]


class Told(NamedTuple):
    """A sentence for the person."""

    kind: Kind
    text: str


_decode = msgspec.json.Decoder(Told).decode


def remember(vault: Vault, told: Told) -> str:
    """The Set-Cookie value that carries it to the next page."""
    sealed = vault.seal(msgspec.json.encode(told).decode(), CONTEXT)
    value = urlsafe_b64encode(sealed).decode().rstrip("=")
    return f"{NAME}={value}; Path=/; Max-Age={SECONDS}; HttpOnly; SameSite=Lax"


def forget() -> str:
    """The Set-Cookie value that ends it."""
    return f"{NAME}=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax"


def told(vault: Vault, cookies: Mapping[str, str]) -> tuple[Told, ...]:
    """What there is to say; a cookie we did not write says nothing."""
    value = cookies.get(NAME)
    if not value:
        return ()
    try:
        sealed = urlsafe_b64decode(value + "=" * (-len(value) % 4))
        return (_decode(vault.unseal(sealed, CONTEXT)),)
    except (ValueError, SealBroken, msgspec.MsgspecError):
        return ()
