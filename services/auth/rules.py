"""What a name, an address and a password must be: decisions only."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from services.auth.common import COMMON, ROWS
from shared.contracts.base import FieldError

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


def normalised(text: str) -> str:
    """One form for what looks the same on any keyboard (NFKC, as NIST SP 800-63B-4 section 3.1.1.2 asks)."""
    return unicodedata.normalize("NFKC", text)


def key_of(name: str) -> str:
    """What names and addresses are compared by: without case."""
    return normalised(name).casefold()


def mistakes(name: str, email: str, password: str, min_length: int) -> list[FieldError]:
    """Everything that is wrong with a new account, all at once."""
    return [
        *_name_mistakes(name),
        *_email_mistakes(email),
        *_password_mistakes(normalised(password), (name, email, email.partition("@")[0]), min_length),
    ]


def is_too_long(password: str) -> bool:
    """Nobody can have such a password: it is not worth a hash."""
    return len(password) > MOST_CHARACTERS


def _name_mistakes(name: str) -> list[FieldError]:
    if "@" in name:
        return [_mistake("name", "invalid", "must not contain @, which tells addresses from names")]
    if name != name.strip() or not name.isprintable():
        return [_mistake("name", "invalid", "must be printable and neither begin nor end with a space")]
    return []


def _email_mistakes(email: str) -> list[FieldError]:
    if not email.isprintable() or not _ADDRESS.fullmatch(email):
        return [_mistake("email", "invalid", "must be an address such as ann@example.org")]
    return []


def _password_mistakes(password: str, own: tuple[str, ...], min_length: int) -> list[FieldError]:
    found = []
    if len(password) < min_length:
        found.append(_mistake("password", "too_short", f"must have at least {min_length} characters"))
    if len(password) > MOST_CHARACTERS:
        found.append(_mistake("password", "too_long", f"must have at most {MOST_CHARACTERS} characters"))
    elif is_common(password):
        found.append(_mistake("password", "too_common", "is among the first anybody would try"))
    if key_of(password) in {key_of(text) for text in own}:
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


def _mistake(path: str, code: str, message: str) -> FieldError:
    return FieldError(path=path, code=code, message=message)
