"""Accounts and sessions."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

from services.gateway.http.elsewhere import check_setup_code
from services.gateway.http.incoming import Incoming
from services.gateway.http.table import ANYONE, Routes
from shared.contracts.auth import Email, Name, OpenSession, SessionOpened, SetUp
from shared.vault import Vault

routes = Routes("Accounts")

# Passwords are judged by auth, which can open them; here only what no password is.
Password = Annotated[str, Meta(min_length=1, max_length=1_024)]


class FirstAccount(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The first account, an administrator; from another machine with the code that `up` prints."""

    name: Name
    email: Email
    password: Password
    code: Annotated[str, Meta(max_length=64)] = ""


class Credentials(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A name or an e-mail address, and its password."""

    name: Annotated[str, Meta(min_length=1, max_length=254)]
    password: Password


class AccessToken(Struct, frozen=True, kw_only=True):
    """A token for `Authorization: Bearer`, good for `expires_in` seconds."""

    access_token: str
    token_type: str
    expires_in: int


def set_up(incoming: Incoming, vault: Vault) -> SetUp:
    """The password leaves this process sealed."""
    form: FirstAccount = incoming.form
    check_setup_code(incoming, vault, form.code)
    return SetUp(name=form.name, email=form.email, password=vault.seal(form.password, "auth.password"))


def open_session(incoming: Incoming, vault: Vault) -> OpenSession:
    """The password leaves this process sealed."""
    form: Credentials = incoming.form
    return OpenSession(name=form.name, password=vault.seal(form.password, "auth.password"))


def opened(reply: SessionOpened, vault: Vault) -> AccessToken:
    """The token, unsealed."""
    token = vault.unseal(reply.access_token, "auth.token")
    return AccessToken(access_token=token, token_type=reply.token_type, expires_in=reply.expires_in)


_SECRET: dict[str, Any] = {"who": ANYONE, "answers": 201}

routes.post(
    "/v1/setup",
    SetUp,
    form=FirstAccount,
    make=set_up,
    refuses=("already_set_up", "setup_code_needed"),
    **_SECRET,
)
routes.post(
    "/v1/sessions",
    OpenSession,
    form=Credentials,
    make=open_session,
    show=opened,
    shows=AccessToken,
    refuses=("wrong_credentials", "too_many_requests"),
    **_SECRET,
)
