"""Everybody's accounts and invitations, for administrators."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from aiohttp import web

from services.gateway.pages.forms import Form
from services.gateway.pages.site import ADMINISTRATOR, Site, Visit
from shared.contracts.auth import (
    ChangeUser,
    DeleteInvitation,
    DeleteUser,
    GetSignUpState,
    ListInvitations,
    ListUsers,
    MakeInvitation,
    RestoreUser,
    User,
    UserPage,
)
from shared.errors import NotFound, Refusal

site = Site()
AT_ONCE = 100
DAYS = (1, 7, 30, 90)
ONE = "/users/{user_id:[0-9a-fA-F-]{36}}"


@site.get("/users", who=ADMINISTRATOR)
async def users(visit: Visit) -> web.Response:
    """Accounts, newest first, and the invitations nobody has used."""
    return visit.page("users.html", **await _known(visit), wrong={}, link="")


async def _known(visit: Visit) -> dict[str, Any]:
    page = await visit.ask(ListUsers(limit=AT_ONCE, after=visit.query.get("after") or None))
    invitations = await visit.ask(ListInvitations())
    state = await visit.ask(GetSignUpState())
    return {
        "users": page.items,
        "administrators": _administrators(page),
        "next": page.next,
        "invitations": invitations.items,
        "state": state,
        "days": DAYS,
    }


def _administrators(page: UserPage) -> int:
    """How many there are, as far as the page tells: the last one is not asked to go."""
    here = sum(ADMINISTRATOR in user.roles and user.deleted_at is None for user in page.items)
    return here if page.next is None else here + 1


async def _user(visit: Visit) -> User:
    """The account in the path; raises NotFound."""
    wanted, after = _id(visit, "user_id"), None
    while True:
        page = await visit.ask(ListUsers(limit=1_000, after=after))
        for user in page.items:
            if user.id == wanted:
                return user
        if page.next is None:
            raise NotFound("There is no such account.")
        after = page.next


def _id(visit: Visit, name: str) -> UUID:
    try:
        return UUID(visit.path[name])
    except ValueError:
        raise NotFound("There is no such account.") from None


# -- one account


@site.post(f"{ONE}/role", who=ADMINISTRATOR)
async def change_role(visit: Visit) -> web.Response:
    """Make an administrator of somebody, or take that away."""
    becomes = visit.form.get("role") == ADMINISTRATOR
    roles: tuple[Any, ...] = (ADMINISTRATOR,) if becomes else ()
    try:
        user = await visit.ask(ChangeUser(user_id=_id(visit, "user_id"), roles=roles))
    except Refusal as refusal:
        return _refused(visit, refusal)
    if becomes:
        return visit.go("/users", f"{user.name} is an administrator, from the next time they sign in.")
    if visit.viewer is not None and user.id == visit.viewer.id:
        cookie = await visit.gateway.browser.close(visit.incoming)
        words = "You are no administrator any more. Please sign in again."
        return visit.go("/login", words, kind="note", cookies=(cookie,))
    return visit.go("/users", f"{user.name} is no administrator any more, and was signed out.")


@site.get(f"{ONE}/delete", who=ADMINISTRATOR)
async def delete_form(visit: Visit) -> web.Response:
    """Says what goes."""
    return visit.page("user_delete.html", user=await _user(visit))


@site.post(f"{ONE}/delete", who=ADMINISTRATOR)
async def delete(visit: Visit) -> web.Response:
    """Gone at once; comes back from the same table for a day."""
    try:
        await visit.ask(DeleteUser(user_id=_id(visit, "user_id")))
    except Refusal as refusal:
        return _refused(visit, refusal)
    return visit.go("/users", "The account is deleted. For 24 hours it can be restored below.")


@site.post(f"{ONE}/restore", who=ADMINISTRATOR)
async def restore(visit: Visit) -> web.Response:
    """Undo the deletion of an account."""
    try:
        user = await visit.ask(RestoreUser(user_id=_id(visit, "user_id")))
    except Refusal as refusal:
        return _refused(visit, refusal)
    return visit.go("/users", f"{user.name} is back, with everything that belongs to the account.")


def _refused(visit: Visit, refusal: Refusal) -> web.Response:
    """What cannot be is said above the table, which shows how things are now."""
    if refusal.status not in (404, 409):
        raise refusal
    return visit.go("/users", refusal.detail, kind="error")


# -- invitations


@site.get("/users/invitations", who=ADMINISTRATOR)
async def invitations(visit: Visit) -> web.Response:
    """Where a reload of what the form answered leads."""
    return visit.go("/users#invitations")


@site.post("/users/invitations", who=ADMINISTRATOR)
async def invite(visit: Visit) -> web.Response:
    """Shows the link in this one answer and never again."""
    form = Form(visit, {"note": 200, "days": 2}, optional=("note",))
    days = int(form["days"]) if form["days"] in map(str, DAYS) else DAYS[1]
    roles: tuple[Any, ...] = (ADMINISTRATOR,) if visit.form.get("administrator") else ()
    made = await form.send(MakeInvitation(note=form["note"], days=days, roles=roles))
    link = ""
    if made is not None:
        secret = visit.gateway.vault.unseal(made.secret, "auth.invitation")
        link = f"{visit.origin}/sign-up?invitation={secret}"
    return form.page("users.html", **await _known(visit), link=link)


@site.post("/users/invitations/{invitation_id:[0-9a-fA-F-]{36}}/delete", who=ADMINISTRATOR)
async def take_back(visit: Visit) -> web.Response:
    """Nobody can use it any more."""
    try:
        await visit.ask(DeleteInvitation(invitation_id=_id(visit, "invitation_id")))
    except Refusal as refusal:
        return _refused(visit, refusal)
    return visit.go("/users#invitations", "The invitation is taken back.")
