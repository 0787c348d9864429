"""What a name, an address and a password must be, and what becomes of a token: decisions only."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from ipaddress import IPv6Address, ip_address, ip_network
from uuid import UUID

from services.auth.common import COMMON, ROWS
from shared.contracts.base import FieldError, Principal
from shared.errors import Conflict, Forbidden, Invalid, Unauthorized

ADMINISTRATOR = "administrator"

MOST_CHARACTERS = 256
LONGEST_UNIT = 8
_ADDRESS = re.compile(r"[^@\s]+@[^@\s]+")


@dataclass(frozen=True)
class Person:
    """An account without its secrets."""

    id: UUID
    project: str
    name: str
    email: str
    roles: tuple[str, ...]
    created_at: datetime
    deleted_at: datetime | None = None
    purge_at: datetime | None = None
    deleted_by: UUID | None = None
    last_seen_at: datetime | None = None

    @property
    def is_administrator(self) -> bool:
        """Whether it looks after the others."""
        return ADMINISTRATOR in self.roles


@dataclass(frozen=True)
class Refreshing:
    """A refresh token somebody came with, and its session."""

    session_id: UUID
    used_at: datetime | None
    locked_successor: bytes | None
    opened_at: datetime
    expires_at: datetime
    ended_at: datetime | None


class Fate(Enum):
    """What becomes of a refresh token."""

    ROTATED = "gets a successor"
    REPEATED = "gets the same successor again"
    STOLEN = "was used before: its session ends"
    OVER = "its session is over"


def normalised(text: str) -> str:
    """One form for what looks the same on any keyboard (NFKC, as NIST SP 800-63B-4 section 3.1.1.2 asks)."""
    return unicodedata.normalize("NFKC", text)


def key_of(name: str) -> str:
    """What names and addresses are compared by: without case."""
    return normalised(name).casefold()


def mistakes(name: str, email: str, password: str, min_length: int, *, leaked: bool) -> list[FieldError]:
    """Everything that is wrong with a new account, all at once; `leaked` when a list has the password."""
    return [
        *name_mistakes(name),
        *email_mistakes(email),
        *password_mistakes(password, (name, email), min_length, leaked=leaked),
    ]


def is_too_long(password: str) -> bool:
    """Nobody can have such a password: it is not worth a hash."""
    return len(password) > MOST_CHARACTERS


def name_mistakes(name: str) -> list[FieldError]:
    """What is wrong with a name."""
    if "@" in name:
        return [_mistake("name", "invalid", "must not contain @, which tells addresses from names")]
    if name != name.strip() or not name.isprintable():
        return [_mistake("name", "invalid", "must be printable and neither begin nor end with a space")]
    return []


def email_mistakes(email: str) -> list[FieldError]:
    """What is wrong with an address."""
    if not email.isprintable() or not _ADDRESS.fullmatch(email):
        return [_mistake("email", "invalid", "must be an address such as ann@example.org")]
    return []


def password_mistakes(
    password: str, own: Collection[str], min_length: int, *, leaked: bool
) -> list[FieldError]:
    """What is wrong with a password of whom these names and addresses belong to."""
    password = normalised(password)
    found = []
    if len(password) < min_length:
        found.append(_mistake("password", "too_short", f"must have at least {min_length} characters"))
    if len(password) > MOST_CHARACTERS:
        found.append(_mistake("password", "too_long", f"must have at most {MOST_CHARACTERS} characters"))
    elif leaked or is_common(password):
        found.append(
            _mistake(
                "password", "too_common", "is among those anybody would try first, or was leaked somewhere"
            )
        )
    if key_of(password) in {key_of(part) for text in own for part in (text, text.partition("@")[0])}:
        found.append(_mistake("password", "same_as_name", "must differ from the name and the address"))
    return found


def is_common(password: str) -> bool:
    """Whether it is on the list, a short unit again and again, or keys in their order on a keyboard."""
    text = password.casefold()
    return text in COMMON or _is_repetition(text) or any(text in row for row in ROWS)


def _is_repetition(text: str) -> bool:
    """`abcabcab`: a unit of at most 8 characters, the last one perhaps cut off."""
    units = (text[:size] for size in range(1, min(LONGEST_UNIT, len(text) // 2) + 1))
    return any((unit * len(text))[: len(text)] == text for unit in units)


# -- tokens and callers --------------------------------------------------------------------------------

SAME_SUCCESSOR = timedelta(seconds=10)


def fate_of(token: Refreshing, owner: Person, now: datetime) -> Fate:
    """What becomes of a refresh token that was issued once."""
    if token.ended_at is not None or token.expires_at <= now or owner.deleted_at is not None:
        return Fate.OVER
    if token.used_at is None:
        return Fate.ROTATED
    if now - token.used_at <= SAME_SUCCESSOR and token.locked_successor is not None:
        return Fate.REPEATED
    return Fate.STOLEN


def person_id(caller: Principal) -> UUID:
    """The account that is calling; raises Unauthorized or Forbidden when it is none."""
    if caller.kind == "anonymous":
        raise Unauthorized("This needs an access token.")
    if caller.kind != "user":
        raise Forbidden("This needs the access token of a person.")
    try:
        return UUID(caller.id)
    except ValueError:
        raise Forbidden("This needs the access token of a person.") from None


def session_id(caller: Principal) -> UUID | None:
    """The session the caller came with."""
    try:
        return UUID(caller.via)
    except ValueError:
        return None


def administrator(caller: Principal) -> UUID:
    """The administrator who is calling; raises Unauthorized or Forbidden when it is none."""
    found = person_id(caller)
    if ADMINISTRATOR not in caller.roles:
        raise Forbidden("Only administrators may do this.")
    return found


def keep_one(administrators: Collection[UUID], leaving: Person) -> None:
    """Refuse when nobody would be left to look after the others."""
    if not set(administrators) - {leaving.id}:
        raise Conflict(
            "This is the last administrator: make somebody else one first.", code="last_administrator"
        )


def is_gone(person: Person, now: datetime) -> bool:
    """Whether a deleted account can come back no more."""
    return person.purge_at is not None and person.purge_at <= now


def cursor(text: str | None) -> UUID | None:
    """Where a page of accounts goes on; raises Invalid."""
    if not text:
        return None
    try:
        return UUID(text)
    except ValueError:
        mistake = FieldError(where="query", path="after", message="is not a cursor this list has given")
        raise Invalid("The request has a mistake.", errors=[mistake]) from None


def wrong_password(path: str) -> FieldError:
    """The password that was to prove something proves nothing."""
    return _mistake(path, "wrong_password", "is not the password of this account")


def network_of(client: str) -> str:
    """Whose address it is, as far as one can tell: an IPv6 user has a whole network of 64 bits."""
    try:
        address = ip_address(client)
    except ValueError:
        return client
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ip_network((address.packed[:8] + bytes(8), 64)))
    return str(address)


def _mistake(path: str, code: str, message: str) -> FieldError:
    return FieldError(path=path, code=code, message=message)
