"""Invitations: who may make an account when not everybody may."""

from __future__ import annotations

from datetime import timedelta

from services.auth import rules
from services.auth.deps import Deps
from services.auth.store.invitations import Invited
from services.auth.tokens import INVITATION, digest_of, opaque
from shared.bus.routes import Done, Routes
from shared.contracts.auth import (
    DeleteInvitation,
    Invitation,
    InvitationMade,
    Invitations,
    ListInvitations,
    MakeInvitation,
)
from shared.contracts.base import Nothing
from shared.errors import NotFound

routes = Routes("auth")

MOST_LISTED = 1_000


@routes.command(MakeInvitation)
async def make_invitation(command: MakeInvitation, deps: Deps) -> Done[InvitationMade]:
    by = rules.administrator(deps.caller)
    tools = deps.tools
    invited = Invited(
        id=tools.new_id(),
        note=command.note,
        roles=command.roles,
        created_at=deps.now,
        expires_at=deps.now + timedelta(days=command.days),
    )
    secret = opaque(INVITATION, invited.id, tools.new_secret())
    digest = digest_of(secret, INVITATION)
    assert digest is not None
    await deps.store.add_invitation(deps.caller.project, invited, digest, by)
    sealed = tools.vault.seal(secret, "auth.invitation")
    return Done(InvitationMade(invitation=_shown(invited), secret=sealed))


@routes.query(ListInvitations)
async def list_invitations(query: ListInvitations, deps: Deps) -> Done[Invitations]:
    rules.administrator(deps.caller)
    found = await deps.store.invitations(deps.caller.project, deps.now, MOST_LISTED)
    return Done(Invitations(items=tuple(map(_shown, found))))


@routes.command(DeleteInvitation)
async def delete_invitation(command: DeleteInvitation, deps: Deps) -> Done[Nothing]:
    rules.administrator(deps.caller)
    if not await deps.store.delete_invitation(deps.caller.project, command.invitation_id):
        raise NotFound("There is no such invitation.")
    return Done(Nothing())


def _shown(invited: Invited) -> Invitation:
    return Invitation(
        id=invited.id,
        note=invited.note,
        roles=invited.roles,
        created_at=invited.created_at,
        expires_at=invited.expires_at,
    )
