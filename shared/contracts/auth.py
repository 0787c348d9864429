"""What crosses the wire to and from auth: accounts and sessions."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from msgspec import Meta, Struct

from shared.contracts.base import Command, Event, Nothing, Query

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
    """A new session, or the same one refreshed; its secrets are sealed on the wire and in the inbox.

    `access_token` lives `expires_in` seconds (context `auth.token`). `refresh_token` (context
    `auth.refresh`) gets the next pair once, until `refresh_expires_at`. `device_token` (context
    `auth.device`), given at sign-in, tells a device that has signed in before from a stranger who guesses.
    """

    access_token: bytes
    expires_in: int
    token_type: str = "Bearer"
    refresh_token: bytes = b""
    refresh_expires_at: datetime | None = None
    device_token: bytes = b""
    session_id: UUID | None = None


class Session(Struct, frozen=True, kw_only=True):
    """A place where somebody is signed in; `current` is the one that asks."""

    id: UUID
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    client: str
    agent: str
    current: bool


class Sessions(Struct, frozen=True, kw_only=True):
    """The caller's sessions, the last used first."""

    items: tuple[Session, ...]
    next: str | None = None


class User(Struct, frozen=True, kw_only=True):
    """An account as its administrators see it; a deleted one can come back until `purge_at`."""

    id: UUID
    name: str
    email: str
    roles: tuple[str, ...]
    created_at: datetime
    last_seen_at: datetime | None
    deleted_at: datetime | None
    purge_at: datetime | None


class UserPage(Struct, frozen=True, kw_only=True):
    """One page of accounts, newest first; `next` continues it."""

    items: tuple[User, ...]
    next: str | None


class Invitation(Struct, frozen=True, kw_only=True):
    """Lets one person make an account; its secret is known to nobody but who was given it."""

    id: UUID
    note: str
    roles: tuple[str, ...]
    created_at: datetime
    expires_at: datetime


class InvitationMade(Struct, frozen=True, kw_only=True):
    """A new invitation and its secret, shown once (sealed with the context `auth.invitation`)."""

    invitation: Invitation
    secret: bytes


class Invitations(Struct, frozen=True, kw_only=True):
    """The invitations nobody has used yet, newest first."""

    items: tuple[Invitation, ...]
    next: str | None = None


class Deleted(Struct, frozen=True, kw_only=True):
    """A deleted account; everything of it is gone at once, and for good after `purge_at`."""

    purge_at: datetime


class SignUpState(Struct, frozen=True, kw_only=True):
    """Whether the first account was made, and who may make the next."""

    set_up: bool
    sign_up: Literal["open", "invitation", "closed"]
    password_min_length: int


class SigningKey(Struct, frozen=True, kw_only=True):
    """An Ed25519 public key (32 bytes) that verifies access tokens whose header names `kid`."""

    kid: str
    public_key: bytes


class SigningKeys(Struct, frozen=True, kw_only=True):
    """All it takes to judge a token: the keys that verify it, and the sessions whose tokens count no more.

    `keys` are those a token that has not expired may be signed with, and the next one before it signs.
    `ended` are the sessions that ended before their time while tokens of theirs may still live.
    """

    keys: tuple[SigningKey, ...]
    ended: tuple[UUID, ...] = ()


class SetUp(Command[Account], topic="auth.set_up"):
    """Make the first account, an administrator; refused with a Conflict for ever after.

    `password` is sealed with the context `auth.password`.
    """

    name: Name
    email: Email
    password: bytes


class GetSignUpState(Query[SignUpState], topic="auth.get_sign_up_state"):
    """Whether the first account was made, and who may make the next; pages ask before they show a form."""


class SignUp(Command[Account], topic="auth.sign_up"):
    """Make an account for oneself, as far as the setting SIGN_UP lets one.

    `password` is sealed with the context `auth.password`, `invitation` (or empty) with `auth.invitation`.
    """

    name: Name
    email: Email
    password: bytes
    invitation: bytes = b""


class OpenSession(Command[SessionOpened], topic="auth.open_session"):
    """Exchange a name or e-mail address and a password for an access token and a refresh token.

    `password` is sealed with the context `auth.password`, `device` (what an earlier sign-in of the same
    device was given, or empty) with `auth.device`. `agent` is what the client calls itself.
    """

    name: Annotated[str, Meta(min_length=1, max_length=254)]
    password: bytes
    device: bytes = b""
    agent: Annotated[str, Meta(max_length=200)] = ""


class RefreshSession(Command[SessionOpened], topic="auth.refresh_session"):
    """Exchange a refresh token (sealed, context `auth.refresh`) for the next pair.

    For 10 s a used token is answered with the same successor; later use of it ends the session.
    """

    refresh_token: bytes


class EndSession(Command[Nothing], topic="auth.end_session"):
    """Sign out: the caller's own session, or another one of the caller's."""

    session_id: UUID | None = None


class EndOtherSessions(Command[Nothing], topic="auth.end_other_sessions"):
    """Sign out everywhere but here."""


class ListSessions(Query[Sessions], topic="auth.list_sessions"):
    """Where the caller is signed in."""


class GetMe(Query[Account], topic="auth.get_me"):
    """The caller's account."""


class ChangeMe(Command[Account], topic="auth.change_me"):
    """Change what is given of one's own account; a new password ends every other session.

    `password` and `current_password` are sealed with the context `auth.password`; an e-mail address or a
    password changes only with `current_password`.
    """

    name: Name | None = None
    email: Email | None = None
    password: bytes | None = None
    current_password: bytes = b""


class DeleteMe(Command[Deleted], topic="auth.delete_me"):
    """Delete one's own account, all its sessions and datasets; undone by `RestoreMe` for 24 h.

    Refused for the last administrator. `password` is sealed with the context `auth.password`.
    """

    password: bytes


class RestoreMe(Command[Account], topic="auth.restore_me"):
    """Undo the deletion of one's own account within 24 h, by name and password (as `OpenSession`).

    Whom an administrator deleted is restored by an administrator.
    """

    name: Annotated[str, Meta(min_length=1, max_length=254)]
    password: bytes
    device: bytes = b""


class ListUsers(Query[UserPage], topic="auth.list_users"):
    """The accounts of the project, deleted ones that can come back among them; for administrators."""

    limit: Annotated[int, Meta(ge=1, le=1_000)] = 100
    after: str | None = None
    order: Literal["asc", "desc"] = "desc"


class ChangeUser(Command[User], topic="auth.change_user"):
    """Give or take the role of administrator; for administrators. The last one keeps it."""

    user_id: UUID
    roles: tuple[Literal["administrator"], ...]


class DeleteUser(Command[Deleted], topic="auth.delete_user"):
    """Delete somebody's account as `DeleteMe` does; for administrators."""

    user_id: UUID


class RestoreUser(Command[User], topic="auth.restore_user"):
    """Undo the deletion of somebody's account within 24 h; for administrators."""

    user_id: UUID


class MakeInvitation(Command[InvitationMade], topic="auth.make_invitation"):
    """Let one person make an account within `days`; for administrators."""

    note: Annotated[str, Meta(max_length=200)] = ""
    roles: tuple[Literal["administrator"], ...] = ()
    days: Annotated[int, Meta(ge=1, le=90)] = 7


class ListInvitations(Query[Invitations], topic="auth.list_invitations"):
    """Invitations that wait to be used; for administrators."""


class DeleteInvitation(Command[Nothing], topic="auth.delete_invitation"):
    """Take an invitation back; for administrators."""

    invitation_id: UUID


class SessionsEnded(Event, topic="auth.sessions_ended"):
    """Sessions ended before their time: gateways forget whoever came with a token of theirs."""

    session_ids: tuple[UUID, ...]


class AccountDeleted(Event, topic="auth.account_deleted"):
    """An account was deleted: what belongs to it disappears, and can come back until `purge_at`."""

    account_id: UUID
    project: str
    purge_at: datetime


class AccountRestored(Event, topic="auth.account_restored"):
    """A deletion was undone: what disappeared with it comes back.

    `purge_at` is that of the deletion: this event may overtake the one that told of it.
    """

    account_id: UUID
    project: str
    purge_at: datetime | None = None


class ListSigningKeys(Query[SigningKeys], topic="auth.list_signing_keys"):
    """The public keys that verify access tokens; asked by the gateway now and then and for an unknown `kid`.

    There is always one: the first who asks makes auth make it.
    """


class ForgetSessions(Command[Nothing], topic="auth.forget_sessions", senders=frozenset()):
    """Delete sessions and invitations that ended a month ago, and tokens used a week ago.

    Sent by auth to itself.
    """


class RotateSigningKey(Command[Nothing], topic="auth.rotate_signing_key", senders=frozenset()):
    """Make a new signing key when the one in use is older than SIGNING_KEY_DAYS; sent by auth to itself."""


class PurgeAccounts(Command[Nothing], topic="auth.purge_accounts", senders=frozenset()):
    """Forget, in pieces, accounts whose 24 h are over; sent by auth to itself."""
