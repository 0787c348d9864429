"""Sessions: open, refresh, list, end."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from uuid import UUID

import structlog

from services.auth import rules
from services.auth.deps import Deps
from services.auth.handlers.proving import claim_of, gone, prove
from services.auth.handlers.signing_keys import signing_key
from services.auth.rules import Fate, Person, Refreshing
from services.auth.store.sessions import Living, Opened
from services.auth.tokens import REFRESH, Devices, digest_of, opaque
from shared.bus.routes import Done, Routes
from shared.contracts.auth import (
    EndOtherSessions,
    EndSession,
    ForgetSessions,
    ListSessions,
    OpenSession,
    RefreshSession,
    Session,
    SessionOpened,
    Sessions,
    SessionsEnded,
)
from shared.contracts.base import Nothing
from shared.errors import Forbidden, NotFound, Refusal, Unauthorized

log = structlog.get_logger()
routes = Routes("auth")

# As many passwords are verified side by side as there are CPUs, or a few more; nobody else waits for them.
SIGN_INS = 4
MOST_LISTED = 1_000
IN_ONE_EVENT = 1_000
PIECE = 1_000
SUCCESSOR = "auth.successor"
# How long a place where somebody signed in is known as theirs (an invitation as used), a used token as used.
PLACES_REMEMBERED = timedelta(days=30)
USED_REMEMBERED = timedelta(days=7)
SUCCESSORS_KEPT = timedelta(minutes=1)


@routes.command(OpenSession, places=SIGN_INS)
async def open_session(command: OpenSession, deps: Deps) -> Done[SessionOpened]:
    """An unknown name and a wrong password differ in nothing a caller can see, not even in time."""
    tools = deps.tools
    proof = await prove(claim_of(command, deps), deps)
    person = proof.person
    if person.deleted_at is not None:
        raise Forbidden("This account was deleted; it can be restored.", code="account_deleted")
    if tools.hasher.is_outdated(proof.found.password_hash):
        new = await tools.hasher.hash(proof.password)
        await deps.store.replace_hash(person.id, proof.found.password_hash, new)
    session_id = tools.new_id()
    refresh = opaque(REFRESH, session_id, tools.new_secret())
    opened = Opened(
        id=session_id,
        account_id=person.id,
        created_at=deps.now,
        expires_at=deps.now + min(tools.policy.session, tools.policy.session_most),
        client=deps.client,
        agent=command.agent,
        token_hash=_digest(refresh),
    )
    await deps.store.add_session(opened)
    device = Devices(tools.vault).issue(proof.device or tools.new_id(), person.id, deps.now)
    return Done(await _pair(person, session_id, refresh, opened.expires_at, deps, device))


@routes.command(RefreshSession)
async def refresh_session(command: RefreshSession, deps: Deps) -> Done[SessionOpened | Refusal]:
    """The session is held first: of two tabs with one token the second finds it used, and its successor."""
    used = digest_of(deps.unsealed(command.refresh_token, "auth.refresh"), REFRESH)
    if used is None or await deps.store.lock_session_of(used) is None:
        raise _over()
    found = await deps.store.refreshing(used)
    if found is None:  # forgotten between the two
        raise _over()
    token, person = found
    match rules.fate_of(token, person, deps.now):
        case Fate.ROTATED:
            refresh, expires = await _rotated(used, token, deps)
        case Fate.REPEATED:
            assert token.locked_successor is not None
            refresh, expires = deps.tools.vault.unlock(token.locked_successor, SUCCESSOR), token.expires_at
        case Fate.STOLEN:
            log.warning("refresh_token_reused", session=str(token.session_id), account=str(person.id))
            await deps.store.end_session(person.id, token.session_id, deps.now)
            return Done(_over(), events=ended([token.session_id]))
        case _:
            raise _over()
    return Done(await _pair(person, token.session_id, refresh, expires, deps))


async def _rotated(used: bytes, token: Refreshing, deps: Deps) -> tuple[str, datetime]:
    tools = deps.tools
    refresh = opaque(REFRESH, token.session_id, tools.new_secret())
    expires = min(deps.now + tools.policy.session, token.opened_at + tools.policy.session_most)
    locked = tools.vault.lock(refresh, SUCCESSOR)
    await deps.store.rotate(used, _digest(refresh), locked, deps.now, expires, deps.client)
    return refresh, expires


async def _pair(
    person: Person, session_id: UUID, refresh: str, expires: datetime, deps: Deps, device: str = ""
) -> SessionOpened:
    tools = deps.tools
    token = tools.issuer.issue(await signing_key(deps), person, session_id, deps.now)
    return SessionOpened(
        access_token=tools.vault.seal(token, "auth.token"),
        expires_in=tools.issuer.seconds,
        refresh_token=tools.vault.seal(refresh, "auth.refresh"),
        refresh_expires_at=expires,
        device_token=tools.vault.seal(device, "auth.device") if device else b"",
        session_id=session_id,
    )


@routes.command(EndSession)
async def end_session(command: EndSession, deps: Deps) -> Done[Nothing]:
    """Ending one's own session twice is no mistake."""
    account, own = await _own_account(deps), rules.session_id(deps.caller)
    session_id = command.session_id or own
    if session_id is None or not await deps.store.end_session(account, session_id, deps.now):
        if session_id == own:
            return Done(Nothing())
        raise NotFound("There is no such session.")
    return Done(Nothing(), events=ended([session_id]))


@routes.command(EndOtherSessions)
async def end_other_sessions(command: EndOtherSessions, deps: Deps) -> Done[Nothing]:
    account, own = await _own_account(deps), rules.session_id(deps.caller)
    return Done(Nothing(), events=ended(await deps.store.end_sessions(account, deps.now, own)))


@routes.query(ListSessions)
async def list_sessions(query: ListSessions, deps: Deps) -> Done[Sessions]:
    account, own = await _own_account(deps), rules.session_id(deps.caller)
    found = await deps.store.sessions(account, deps.now, MOST_LISTED)
    return Done(Sessions(items=tuple(_shown(session, own) for session in found)))


async def _own_account(deps: Deps) -> UUID:
    """The caller's account; sessions have no project, so that of their owner is looked at."""
    account = rules.person_id(deps.caller)
    if await deps.store.person(deps.caller.project, account) is None:
        raise gone()
    return account


@routes.command(ForgetSessions, inbox=False)
async def forget_sessions(command: ForgetSessions, deps: Deps) -> Done[Nothing]:
    """In pieces, so that a backlog of years is no long transaction."""
    await deps.store.forget_invitations(deps.now - PLACES_REMEMBERED)
    await deps.store.forget_successors(deps.now - SUCCESSORS_KEPT)
    while await deps.store.forget_tokens(deps.now - USED_REMEMBERED, PIECE) == PIECE:
        pass
    while await deps.store.forget_sessions(deps.now - PLACES_REMEMBERED, PIECE) == PIECE:
        pass
    return Done(Nothing())


def ended(sessions: Iterable[UUID]) -> tuple[SessionsEnded, ...]:
    """The events that tell of the end of these sessions."""
    ids = tuple(sessions)
    parts = (ids[start : start + IN_ONE_EVENT] for start in range(0, len(ids), IN_ONE_EVENT))
    return tuple(SessionsEnded(session_ids=part) for part in parts)


def _shown(session: Living, own: UUID | None) -> Session:
    return Session(
        id=session.id,
        created_at=session.created_at,
        last_used_at=session.last_used_at,
        expires_at=session.expires_at,
        client=session.client,
        agent=session.agent,
        current=session.id == own,
    )


def _over() -> Unauthorized:
    return Unauthorized("The session is over: sign in again.", code="session_over")


def _digest(token: str) -> bytes:
    digest = digest_of(token, REFRESH)
    assert digest is not None
    return digest
