"""Accounts, sessions and invitations as auth answers about them, as far as the gateway can tell."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from shared.bus.requests import Caller
from shared.contracts.auth import (
    Account,
    ChangeMe,
    ChangeUser,
    Deleted,
    DeleteInvitation,
    DeleteMe,
    DeleteUser,
    EndOtherSessions,
    EndSession,
    GetMe,
    GetSignUpState,
    Invitation,
    InvitationMade,
    Invitations,
    ListInvitations,
    ListSessions,
    ListUsers,
    MakeInvitation,
    RefreshSession,
    RestoreMe,
    RestoreUser,
    Session,
    SessionOpened,
    Sessions,
    SignUp,
    SignUpState,
    User,
    UserPage,
)
from shared.contracts.base import Message, Nothing
from shared.errors import Forbidden, Unauthorized
from shared.vault import Vault

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
LATER = NOON + timedelta(days=1)
ID = UUID("0193ffff-0000-7000-8000-00000000000a")
ANN = Account(id=ID, name="ann", email="ann@example.org", roles=("administrator",), created_at=NOON)
USER = User(
    id=ID,
    name="ann",
    email="ann@example.org",
    roles=(),
    created_at=NOON,
    last_seen_at=None,
    deleted_at=None,
    purge_at=None,
)
SESSION = Session(
    id=ID, created_at=NOON, last_used_at=NOON, expires_at=LATER, client="::1", agent="", current=True
)
INVITATION = Invitation(id=ID, note="", roles=(), created_at=NOON, expires_at=LATER)
REFRESH, DEVICE, INVITED = "phr_of-ann", "phd_of-ann", "phi_of-bob"


def opened(vault: Vault, token: str, *, device: str = DEVICE) -> SessionOpened:
    """A session and all its secrets."""
    return SessionOpened(
        access_token=vault.seal(token, "auth.token"),
        expires_in=300,
        refresh_token=vault.seal(REFRESH, "auth.refresh"),
        refresh_expires_at=LATER,
        device_token=vault.seal(device, "auth.device") if device else b"",
        session_id=ID,
    )


def people(vault: Vault, token: Callable[[], str]) -> dict[type[Message], Callable[[Any, Caller], Any]]:
    """A handler for each message about people."""

    def refresh(cmd: RefreshSession, caller: Caller) -> SessionOpened:
        if vault.unseal(cmd.refresh_token, "auth.refresh") != REFRESH:
            raise Unauthorized("sign in again", code="session_over")
        return opened(vault, token(), device="")

    def sign_up(cmd: SignUp, caller: Caller) -> Account:
        if not cmd.invitation or vault.unseal(cmd.invitation, "auth.invitation") != INVITED:
            raise Forbidden("an account needs an invitation", code="invitation_needed")
        return ANN

    def make(cmd: MakeInvitation, caller: Caller) -> InvitationMade:
        return InvitationMade(invitation=INVITATION, secret=vault.seal(INVITED, "auth.invitation"))

    state = SignUpState(set_up=True, sign_up="invitation", password_min_length=15)
    return {
        GetSignUpState: lambda q, c: state,
        SignUp: sign_up,
        RefreshSession: refresh,
        ListSessions: lambda q, c: Sessions(items=(SESSION,)),
        EndSession: lambda q, c: Nothing(),
        EndOtherSessions: lambda q, c: Nothing(),
        GetMe: lambda q, c: ANN,
        ChangeMe: lambda q, c: ANN,
        DeleteMe: lambda q, c: Deleted(purge_at=LATER),
        RestoreMe: lambda q, c: ANN,
        ListUsers: lambda q, c: UserPage(items=(USER,), next=None),
        ChangeUser: lambda q, c: USER,
        DeleteUser: lambda q, c: Deleted(purge_at=LATER),
        RestoreUser: lambda q, c: USER,
        MakeInvitation: make,
        ListInvitations: lambda q, c: Invitations(items=(INVITATION,)),
        DeleteInvitation: lambda q, c: Nothing(),
    }
