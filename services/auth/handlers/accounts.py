"""One's own account: make, see, change, delete, restore."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import structlog

from services.auth import rules
from services.auth.deps import Deps
from services.auth.handlers.proving import claim_of, gone, prove, prove_own, wrong_credentials
from services.auth.handlers.sessions import ended
from services.auth.rules import ADMINISTRATOR, Person
from services.auth.store.accounts import Credentials, taken
from services.auth.store.invitations import Invited
from services.auth.tokens import INVITATION, digest_of
from shared.bus.routes import Done, Routes
from shared.contracts.auth import (
    Account,
    AccountDeleted,
    AccountRestored,
    ChangeMe,
    Deleted,
    DeleteMe,
    GetMe,
    GetSignUpState,
    PurgeAccounts,
    RestoreMe,
    SetUp,
    SignUp,
    SignUpState,
)
from shared.contracts.base import Event, FieldError, Nothing
from shared.errors import Conflict, Forbidden, Invalid

log = structlog.get_logger()
routes = Routes("auth")

# Anybody may ask for these hashes: they wait in a place of their own.
HASHES = 2
UNDONE_WITHIN = timedelta(hours=24)
PIECE = 1_000


@routes.query(GetSignUpState)
async def get_sign_up_state(query: GetSignUpState, deps: Deps) -> Done[SignUpState]:
    policy = deps.tools.policy
    state = SignUpState(
        set_up=await deps.store.is_set_up(),
        sign_up=policy.sign_up,
        password_min_length=policy.password_min_length,
    )
    return Done(state)


@routes.command(SetUp)
async def set_up(command: SetUp, deps: Deps) -> Done[Account]:
    """Looks before it hashes, so that asking again and again costs nothing."""
    if await deps.store.is_set_up():
        raise _already_set_up()
    person, password_hash = await _new(command, (ADMINISTRATOR,), deps)
    if not await deps.store.add_first_account(person, password_hash):
        raise _already_set_up()
    return Done(account_of(person))


@routes.command(SignUp, places=HASHES)
async def sign_up(command: SignUp, deps: Deps) -> Done[Account]:
    """Who may not is refused before a name is looked at: nobody learns which names are taken."""
    if not await deps.store.is_set_up():
        raise Conflict("The first account is made first.", code="not_set_up")
    ticket = await deps.tools.throttle.enter_sign_up(deps.client)
    invited = await _invited(command, deps)
    if invited is not None:
        await deps.tools.throttle.give_back(ticket)
    person, password_hash = await _new(command, invited.roles if invited else (), deps)
    if not await deps.store.add_account(person, password_hash):
        raise taken()
    if invited is not None:
        await deps.store.use_invitation(invited.id, person.id, deps.now)
    return Done(account_of(person))


async def _invited(command: SignUp, deps: Deps) -> Invited | None:
    mode = deps.tools.policy.sign_up
    if mode == "closed":
        raise Forbidden("Nobody makes an account here.", code="sign_up_closed")
    text = deps.unsealed(command.invitation, "auth.invitation")
    if not text and mode == "open":
        return None
    digest = digest_of(text, INVITATION)
    invited = await deps.store.invitation(deps.caller.project, digest, deps.now) if digest else None
    if invited is None:
        words = "The invitation is over or was used." if text else "An account needs an invitation here."
        raise Forbidden(words, code="invitation_needed")
    return invited


async def _new(command: SetUp | SignUp, roles: Sequence[str], deps: Deps) -> tuple[Person, str]:
    """A new account and its password's hash; raises Invalid with every mistake."""
    tools = deps.tools
    password = rules.normalised(deps.unsealed(command.password, "auth.password"))
    errors = rules.mistakes(
        command.name,
        command.email,
        password,
        tools.policy.password_min_length,
        leaked=tools.is_leaked(password),
    )
    if errors:
        raise Invalid("The account cannot be made like this.", errors=errors)
    person = Person(
        id=tools.new_id(),
        project=deps.caller.project,
        name=command.name,
        email=command.email,
        roles=tuple(roles),
        created_at=deps.now,
    )
    return person, await tools.hasher.hash(password)


@routes.query(GetMe)
async def get_me(query: GetMe, deps: Deps) -> Done[Account]:
    person = await deps.store.person(deps.caller.project, rules.person_id(deps.caller))
    if person is None or person.deleted_at is not None:
        raise gone()
    return Done(account_of(person))


@routes.command(ChangeMe)
async def change_me(command: ChangeMe, deps: Deps) -> Done[Account]:
    """A new password ends every other session: who knew the old one is out."""
    found = await _changing(command, deps)
    person = replace(
        found.person, name=command.name or found.person.name, email=command.email or found.person.email
    )
    password = None
    if command.password is not None:
        password = rules.normalised(deps.unsealed(command.password, "auth.password"))
    if errors := _changed_wrongly(command, person, password, deps):
        raise Invalid("The account cannot be changed like this.", errors=errors)
    await deps.store.change(person)
    if password is None:
        return Done(account_of(person))
    await deps.store.set_password(person.id, await deps.tools.hasher.hash(password))
    own = rules.session_id(deps.caller)
    return Done(account_of(person), events=ended(await deps.store.end_sessions(person.id, deps.now, own)))


async def _changing(command: ChangeMe, deps: Deps) -> Credentials:
    """The caller's account, held; the password is asked for what would let a thief keep it."""
    if command.email is not None or command.password is not None:
        password = deps.unsealed(command.current_password, "auth.password")
        return await prove_own(password, deps, "current_password")
    found = await deps.store.own_credentials(deps.caller.project, rules.person_id(deps.caller))
    if found is None:
        raise gone()
    return found


def _changed_wrongly(command: ChangeMe, person: Person, password: str | None, deps: Deps) -> list[FieldError]:
    errors = [] if command.name is None else rules.name_mistakes(person.name)
    if command.email is not None:
        errors += rules.email_mistakes(person.email)
    if password is not None:
        tools = deps.tools
        errors += rules.password_mistakes(
            password,
            (person.name, person.email),
            tools.policy.password_min_length,
            leaked=tools.is_leaked(password),
        )
    return errors


@routes.command(DeleteMe)
async def delete_me(command: DeleteMe, deps: Deps) -> Done[Deleted]:
    found = await prove_own(deps.unsealed(command.password, "auth.password"), deps)
    return await delete(found.person, found.person.id, deps)


@routes.command(RestoreMe, places=HASHES)
async def restore_me(command: RestoreMe, deps: Deps) -> Done[Account]:
    """Judged and throttled as signing in is."""
    proof = await prove(claim_of(command, deps), deps)
    if proof.person.deleted_by not in (None, proof.person.id):
        raise Forbidden("An administrator deleted this account; only an administrator brings it back.")
    return await restore(proof.person, deps)


@routes.command(PurgeAccounts, inbox=False)
async def purge_accounts(command: PurgeAccounts, deps: Deps) -> Done[Nothing]:
    """In pieces, and as often as it is asked: an end in the middle leaves the rest for the next time."""
    while await deps.store.purge_sessions(deps.now, PIECE) == PIECE:
        pass
    while purged := await deps.store.purge(deps.now, PIECE):
        log.info("accounts_purged", accounts=purged)
    return Done(Nothing())


async def delete(person: Person, by: UUID, deps: Deps) -> Done[Deleted]:
    """Delete an account with its sessions, and announce it."""
    if person.is_administrator:
        rules.keep_one(await deps.store.lock_administrators(person.project), person)
    purge_at = deps.now + UNDONE_WITHIN
    if not await deps.store.delete(person.id, deps.now, purge_at, by):
        raise gone()
    sessions = await deps.store.end_sessions(person.id, deps.now)
    gone_now = AccountDeleted(account_id=person.id, project=person.project, purge_at=purge_at)
    return Done(Deleted(purge_at=purge_at), events=(gone_now, *ended(sessions)))


async def restore(person: Person, deps: Deps) -> Done[Account]:
    """Bring an account back, and announce it; nothing happens to one that was not deleted."""
    if person.purge_at is None:
        return Done(account_of(person))
    if not await deps.store.restore(person.id, deps.now):
        raise wrong_credentials()
    events: tuple[Event, ...] = (
        AccountRestored(account_id=person.id, project=person.project, purge_at=person.purge_at),
    )
    return Done(account_of(person), events=events)


def account_of(person: Person) -> Account:
    """A person as others see them."""
    return Account(
        id=person.id,
        name=person.name,
        email=person.email,
        roles=person.roles,
        created_at=person.created_at,
    )


def _already_set_up() -> Conflict:
    return Conflict(
        "The first account was made already; an administrator makes the others.", code="already_set_up"
    )
