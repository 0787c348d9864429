"""Message in, Done out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import structlog

from services.auth import rules
from services.auth.hashing import Hasher
from services.auth.rules import Person
from services.auth.store import Credentials, Store
from services.auth.tokens import Issuer, LockedKey
from shared.bus.ids import uuid7
from shared.bus.routes import Done, Routes
from shared.contracts.auth import (
    Account,
    ForgetSessions,
    ListSigningKeys,
    OpenSession,
    SessionOpened,
    SetUp,
    SigningKeys,
)
from shared.contracts.base import Nothing, Principal
from shared.errors import Conflict, Invalid, Unauthorized
from shared.vault import Vault

log = structlog.get_logger()
routes = Routes("auth")

ADMINISTRATOR = "administrator"
REMEMBERED = timedelta(days=1)


@dataclass(frozen=True)
class Deps:
    """What a handler of auth works with."""

    store: Store
    caller: Principal
    now: datetime
    vault: Vault
    hasher: Hasher
    issuer: Issuer
    password_min_length: int = 15
    new_id: Callable[[], UUID] = uuid7


@routes.command(SetUp)
async def set_up(command: SetUp, deps: Deps) -> Done[Account]:
    """Looks before it hashes, so that asking again and again costs nothing."""
    if await deps.store.is_set_up():
        raise _already_set_up()
    password = deps.vault.unseal(command.password, "auth.password")
    if errors := rules.mistakes(command.name, command.email, password, deps.password_min_length):
        raise Invalid("The account cannot be made like this.", errors=errors)
    person = Person(
        id=deps.new_id(),
        project=deps.caller.project,
        name=command.name,
        email=command.email,
        roles=(ADMINISTRATOR,),
        created_at=deps.now,
    )
    password_hash = await deps.hasher.hash(rules.normalised(password))
    if not await deps.store.add_first_account(person, password_hash):
        raise _already_set_up()
    return Done(_account(person))


@routes.command(OpenSession)
async def open_session(command: OpenSession, deps: Deps) -> Done[SessionOpened]:
    """An unknown name and a wrong password differ in nothing a caller can see, not even in time."""
    password = rules.normalised(deps.vault.unseal(command.password, "auth.password"))
    found = await deps.store.credentials(deps.caller.project, command.name)
    if not await _is_right(found, password, deps) or found is None:
        raise Unauthorized("The name or the password is wrong.", code="wrong_credentials")
    if deps.hasher.is_outdated(found.password_hash):
        new = await deps.hasher.hash(password)
        await deps.store.replace_hash(found.person.id, found.password_hash, new)
    session_id = deps.new_id()
    expires = deps.now + timedelta(seconds=deps.issuer.seconds)
    await deps.store.add_session(session_id, found.person.id, deps.now, expires)
    token = deps.issuer.issue(await _signing_key(deps), found.person, session_id, deps.now)
    return Done(
        SessionOpened(access_token=deps.vault.seal(token, "auth.token"), expires_in=deps.issuer.seconds)
    )


@routes.command(ForgetSessions, inbox=False)
async def forget_sessions(command: ForgetSessions, deps: Deps) -> Done[Nothing]:
    """In pieces, so that a backlog of years is no long transaction."""
    await deps.store.forget_sessions(deps.now - REMEMBERED)
    return Done(Nothing())


@routes.query(ListSigningKeys)
async def list_signing_keys(query: ListSigningKeys, deps: Deps) -> Done[SigningKeys]:
    """Retired keys stay listed while a token may live that they have signed.

    The one query that may write: the first key is made when it is first asked for, since the gateway is
    not ready before it has one. Lost or repeated, it is the same key.
    """
    await _signing_key(deps)
    since = deps.now - timedelta(seconds=deps.issuer.seconds)
    return Done(SigningKeys(keys=await deps.store.public_keys(since)))


async def _is_right(found: Credentials | None, password: str, deps: Deps) -> bool:
    attempt = "" if rules.is_too_long(password) else password
    right = await deps.hasher.verify(found.password_hash if found else None, attempt)
    if not right:  # no name: people type passwords where names belong
        log.info("sign_in_refused", account=str(found.person.id) if found else None)
    return right


async def _signing_key(deps: Deps) -> LockedKey:
    """Read each time, never remembered: one that was just made is gone if this transaction fails."""
    key = await deps.store.signing_key()
    if key is None:
        await deps.store.add_signing_key(deps.issuer.new_key(), deps.now)
        key = await deps.store.signing_key()
    assert key is not None
    return key


def _already_set_up() -> Conflict:
    return Conflict(
        "The first account was made already; an administrator makes the others.", code="already_set_up"
    )


def _account(person: Person) -> Account:
    return Account(
        id=person.id,
        name=person.name,
        email=person.email,
        roles=person.roles,
        created_at=person.created_at,
    )
