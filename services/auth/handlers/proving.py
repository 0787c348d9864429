"""Whose password it is: one verification for whoever asks, whether there is such an account or not."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from uuid import UUID

import structlog

from services.auth import rules
from services.auth.deps import Deps, Tools
from services.auth.rules import Person, network_of
from services.auth.store.accounts import Credentials
from services.auth.throttle import Attempt
from services.auth.tokens import Devices
from shared.contracts.auth import OpenSession, RestoreMe
from shared.errors import Invalid, NotFound, Unauthorized

log = structlog.get_logger()


@dataclass(frozen=True)
class Claim:
    """A name, the password that goes with it, and where both came from."""

    project: str
    name: str
    password: str
    device: str
    client: str


@dataclass(frozen=True)
class Proof:
    """A claim that was right: whose it is, and the device if it is a known one."""

    found: Credentials
    password: str
    device: UUID | None

    @property
    def person(self) -> Person:
        """Who it is."""
        return self.found.person


def claim_of(command: OpenSession | RestoreMe, deps: Deps) -> Claim:
    """What a command claims, opened."""
    return Claim(
        deps.caller.project,
        command.name,
        deps.unsealed(command.password, "auth.password"),
        deps.unsealed(command.device, "auth.device"),
        deps.client,
    )


async def prove(claim: Claim, deps: Deps) -> Proof:
    """Judge a claim, of a deleted account too; raises TooMany, or the same Unauthorized for every mistake."""
    found = await deps.store.credentials(claim.project, claim.name)
    nobody = UUID(int=0)
    places = await deps.store.places(found.person.id if found else nobody)
    attempt = _attempt(claim, found, places, deps)
    ticket = await deps.tools.throttle.enter(attempt)
    right = await _is_right(found, claim.password, deps.tools)
    if not right or found is None or rules.is_gone(found.person, deps.now):
        # No name: people type passwords where names belong.
        log.info("sign_in_refused", account=str(found.person.id) if found else None)
        raise wrong_credentials()
    await deps.tools.throttle.give_back(ticket)
    return Proof(found, rules.normalised(claim.password), attempt.device)


def _attempt(claim: Claim, found: Credentials | None, places: Collection[str], deps: Deps) -> Attempt:
    if found is None:
        return Attempt(claim.project, claim.name, claim.client)
    account = found.person.id
    device = Devices(deps.tools.vault).known(claim.device, account, deps.now)
    is_known = claim.client != "" and network_of(claim.client) in map(network_of, places)
    return Attempt(claim.project, claim.name, claim.client, device, account, is_known)


async def _is_right(found: Credentials | None, password: str, tools: Tools) -> bool:
    text = rules.normalised(password)
    attempt = "" if rules.is_too_long(text) else text
    return await tools.hasher.verify(found.password_hash if found else None, attempt)


async def prove_own(password: str, deps: Deps, path: str = "password") -> Credentials:
    """The caller's account, held; raises Invalid when the password is not its own."""
    found = await deps.store.own_credentials(deps.caller.project, rules.person_id(deps.caller))
    if found is None:
        raise gone()
    ticket = await deps.tools.throttle.enter_own(found.person.id)
    if not await _is_right(found, password, deps.tools):
        log.info("own_password_refused", account=str(found.person.id))
        raise Invalid("This is not the password of the account.", errors=[rules.wrong_password(path)])
    await deps.tools.throttle.give_back(ticket)
    return found


def wrong_credentials() -> Unauthorized:
    """The same for an unknown name, a wrong password, and an account that is gone."""
    return Unauthorized("The name or the password is wrong.", code="wrong_credentials")


def gone() -> NotFound:
    """The caller's token has outlived the caller's account."""
    return NotFound("There is no such account any more.")
