"""Accounts, sessions and invitations; every secret leaves and enters this process sealed."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from aiohttp.hdrs import USER_AGENT
from msgspec import Meta, Struct

from services.gateway.http.elsewhere import check_setup_code
from services.gateway.http.incoming import Incoming
from services.gateway.http.table import ANYONE, USER, Routes
from shared.contracts.auth import (
    ChangeMe,
    ChangeUser,
    DeleteInvitation,
    DeleteMe,
    DeleteUser,
    Email,
    EndOtherSessions,
    EndSession,
    GetMe,
    GetSignUpState,
    InvitationMade,
    ListInvitations,
    ListSessions,
    ListUsers,
    MakeInvitation,
    Name,
    OpenSession,
    RefreshSession,
    RestoreMe,
    RestoreUser,
    SessionOpened,
    SetUp,
    SignUp,
)
from shared.vault import Vault

routes = Routes("Accounts")

AGENT_CHARACTERS = 200
# Passwords are judged by auth, which can open them; here only what no password is.
Password = Annotated[str, Meta(min_length=1, max_length=1_024)]
NameOrEmail = Annotated[str, Meta(min_length=1, max_length=254)]
Token = Annotated[str, Meta(max_length=512)]


class FirstAccount(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The first account, an administrator; from another machine with the code that `up` prints."""

    name: Name
    email: Email
    password: Password
    code: Annotated[str, Meta(max_length=64)] = ""


class NewAccount(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An account of one's own, with an invitation where one is needed."""

    name: Name
    email: Email
    password: Password
    invitation: Token = ""


class Credentials(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A name or an e-mail address and its password, and what an earlier sign-in gave this device."""

    name: NameOrEmail
    password: Password
    device_token: Token = ""


class RefreshToken(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A refresh token, which is good for one exchange."""

    refresh_token: Token


class Changes(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to change; an address or a password only with the current password."""

    name: Name | None = None
    email: Email | None = None
    password: Password | None = None
    current_password: Annotated[str, Meta(max_length=1_024)] = ""


class OwnPassword(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The password of the account that is about to be deleted."""

    password: Password


class SessionPath(Struct, frozen=True, kw_only=True):
    """One session."""

    session_id: UUID


class Tokens(Struct, frozen=True, kw_only=True):
    """A token for `Authorization: Bearer`, good for `expires_in` seconds, and the one that gets the next."""

    access_token: str
    token_type: str
    expires_in: int
    refresh_token: str
    refresh_expires_at: datetime | None
    session_id: UUID | None


class SignedIn(Tokens, frozen=True, kw_only=True):
    """Tokens of a new session; `device_token` lets this device in sooner when others guess the password."""

    device_token: str


class NewInvitation(Struct, frozen=True, kw_only=True):
    """An invitation and its secret, which is shown this once."""

    id: UUID
    note: str
    roles: tuple[str, ...]
    created_at: datetime
    expires_at: datetime
    secret: str


def set_up(incoming: Incoming, vault: Vault) -> SetUp:
    """From another machine with the code."""
    form: FirstAccount = incoming.form
    check_setup_code(incoming, vault, form.code)
    return SetUp(name=form.name, email=form.email, password=vault.seal(form.password, "auth.password"))


def sign_up(incoming: Incoming, vault: Vault) -> SignUp:
    """An empty invitation is none."""
    form: NewAccount = incoming.form
    return SignUp(
        name=form.name,
        email=form.email,
        password=vault.seal(form.password, "auth.password"),
        invitation=_sealed(form.invitation, "auth.invitation", vault),
    )


def open_session(incoming: Incoming, vault: Vault) -> OpenSession:
    """With what the client calls itself, for the list of sessions."""
    form: Credentials = incoming.form
    agent = "".join(filter(str.isprintable, incoming.headers.get(USER_AGENT, "")))
    return OpenSession(
        name=form.name,
        password=vault.seal(form.password, "auth.password"),
        device=_sealed(form.device_token, "auth.device", vault),
        agent=agent[:AGENT_CHARACTERS],
    )


def refresh_session(incoming: Incoming, vault: Vault) -> RefreshSession:
    """Whoever has the token is who it was given to."""
    form: RefreshToken = incoming.form
    return RefreshSession(refresh_token=vault.seal(form.refresh_token, "auth.refresh"))


def end_own_session(incoming: Incoming, vault: Vault) -> EndSession:
    """The one that asks."""
    return EndSession()


def end_session(incoming: Incoming, vault: Vault) -> EndSession:
    """Another one of the caller's."""
    path: SessionPath = incoming.path
    return EndSession(session_id=path.session_id)


def change_me(incoming: Incoming, vault: Vault) -> ChangeMe:
    """Only what is given changes."""
    form: Changes = incoming.form
    return ChangeMe(
        name=form.name,
        email=form.email,
        password=None if form.password is None else vault.seal(form.password, "auth.password"),
        current_password=_sealed(form.current_password, "auth.password", vault),
    )


def delete_me(incoming: Incoming, vault: Vault) -> DeleteMe:
    """A token alone deletes nothing."""
    form: OwnPassword = incoming.form
    return DeleteMe(password=vault.seal(form.password, "auth.password"))


def restore_me(incoming: Incoming, vault: Vault) -> RestoreMe:
    """A deleted account has no token: its name and password prove whose it is."""
    form: Credentials = incoming.form
    return RestoreMe(
        name=form.name,
        password=vault.seal(form.password, "auth.password"),
        device=_sealed(form.device_token, "auth.device", vault),
    )


def signed_in(reply: SessionOpened, vault: Vault) -> SignedIn:
    """The tokens of a new session, unsealed."""
    device = vault.unseal(reply.device_token, "auth.device") if reply.device_token else ""
    return SignedIn(device_token=device, **_tokens(reply, vault))


def refreshed(reply: SessionOpened, vault: Vault) -> Tokens:
    """The next tokens of a session, unsealed."""
    return Tokens(**_tokens(reply, vault))


def invited(reply: InvitationMade, vault: Vault) -> NewInvitation:
    """The invitation with its secret, unsealed."""
    made = reply.invitation
    return NewInvitation(
        id=made.id,
        note=made.note,
        roles=made.roles,
        created_at=made.created_at,
        expires_at=made.expires_at,
        secret=vault.unseal(reply.secret, "auth.invitation"),
    )


def _tokens(reply: SessionOpened, vault: Vault) -> dict[str, Any]:
    return {
        "access_token": vault.unseal(reply.access_token, "auth.token"),
        "token_type": reply.token_type,
        "expires_in": reply.expires_in,
        "refresh_token": vault.unseal(reply.refresh_token, "auth.refresh") if reply.refresh_token else "",
        "refresh_expires_at": reply.refresh_expires_at,
        "session_id": reply.session_id,
    }


def _sealed(text: str, context: str, vault: Vault) -> bytes:
    return vault.seal(text, context) if text else b""


_SECRET: dict[str, Any] = {"who": ANYONE, "answers": 201}
_GUARDED = ("wrong_credentials", "too_many_requests")

routes.get("/v1/sign-up", GetSignUpState, who=ANYONE)
routes.post(
    "/v1/setup",
    SetUp,
    form=FirstAccount,
    make=set_up,
    refuses=("already_set_up", "setup_code_needed"),
    **_SECRET,
)
routes.post(
    "/v1/users",
    SignUp,
    form=NewAccount,
    make=sign_up,
    refuses=("taken", "invitation_needed", "sign_up_closed", "not_set_up", "too_many_requests"),
    **_SECRET,
)
routes.post(
    "/v1/sessions",
    OpenSession,
    form=Credentials,
    make=open_session,
    show=signed_in,
    shows=SignedIn,
    refuses=(*_GUARDED, "account_deleted"),
    **_SECRET,
)
routes.post(
    "/v1/sessions/refresh",
    RefreshSession,
    form=RefreshToken,
    make=refresh_session,
    show=refreshed,
    shows=Tokens,
    refuses=("session_over",),
    who=ANYONE,
)
routes.get("/v1/sessions", ListSessions, who=USER)
routes.delete("/v1/sessions", EndOtherSessions, who=USER)
routes.delete("/v1/sessions/current", EndSession, make=end_own_session, name="signOut", who=USER)
routes.delete(
    "/v1/sessions/{session_id:[0-9a-fA-F-]+}", EndSession, path_form=SessionPath, make=end_session, who=USER
)

routes.get("/v1/me", GetMe, who=USER)
routes.patch("/v1/me", ChangeMe, form=Changes, make=change_me, refuses=("taken", *_GUARDED[1:]), who=USER)
routes.delete(
    "/v1/me",
    DeleteMe,
    form=OwnPassword,
    make=delete_me,
    refuses=("last_administrator", *_GUARDED[1:]),
    who=USER,
)
routes.post("/v1/me/restore", RestoreMe, form=Credentials, make=restore_me, refuses=_GUARDED, who=ANYONE)

routes.get("/v1/users", ListUsers, who=USER)
routes.patch("/v1/users/{user_id}", ChangeUser, refuses=("last_administrator",), who=USER)
routes.delete("/v1/users/{user_id}", DeleteUser, refuses=("last_administrator",), who=USER)
routes.post("/v1/users/{user_id}/restore", RestoreUser, who=USER)

routes.get("/v1/invitations", ListInvitations, who=USER)
routes.post("/v1/invitations", MakeInvitation, show=invited, shows=NewInvitation, answers=201, who=USER)
routes.delete("/v1/invitations/{invitation_id}", DeleteInvitation, who=USER)
