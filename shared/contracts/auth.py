"""What crosses the wire to and from auth: accounts and sessions."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from msgspec import Meta, Struct

from shared.contracts.base import Command, Nothing, Query

Name = Annotated[str, Meta(min_length=1, max_length=64)]
# Its form is judged by auth, together with the name and the password: every mistake in one answer.
Email = Annotated[str, Meta(max_length=254, extra_json_schema={"format": "email"})]


class Account(Struct, frozen=True, kw_only=True):
    """A person as others see them: never a hash, never a token."""

    id: UUID
    name: str
    email: str
    roles: tuple[str, ...]
    created_at: datetime


class SessionOpened(Struct, frozen=True, kw_only=True):
    """A new session; `access_token` is sealed on the wire and in the inbox, opened by the gateway."""

    access_token: bytes
    expires_in: int
    token_type: str = "Bearer"


class SigningKey(Struct, frozen=True, kw_only=True):
    """An Ed25519 public key (32 bytes) that verifies access tokens whose header names `kid`."""

    kid: str
    public_key: bytes


class SigningKeys(Struct, frozen=True, kw_only=True):
    """Every key a token that has not expired may be signed with."""

    keys: tuple[SigningKey, ...]


class SetUp(Command[Account], topic="auth.set_up"):
    """Make the first account, an administrator; refused with a Conflict for ever after.

    `password` is sealed with the context `auth.password`.
    """

    name: Name
    email: Email
    password: bytes


class OpenSession(Command[SessionOpened], topic="auth.open_session"):
    """Exchange a name or e-mail address and a password for an access token.

    `password` is sealed with the context `auth.password`, the token in the reply with `auth.token`.
    """

    name: Annotated[str, Meta(min_length=1, max_length=254)]
    password: bytes


class ListSigningKeys(Query[SigningKeys], topic="auth.list_signing_keys"):
    """The public keys that verify access tokens; asked by the gateway at start and for an unknown `kid`.

    There is always one: the first who asks makes auth make it.
    """


class ForgetSessions(Command[Nothing], topic="auth.forget_sessions", senders=frozenset()):
    """Delete sessions that ended more than a day ago; sent by auth to itself."""
