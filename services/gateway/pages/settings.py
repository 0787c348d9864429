"""One's own account: name, address, password, where it is signed in, and its end."""

from __future__ import annotations

from typing import NamedTuple
from uuid import UUID

from aiohttp import web

from services.gateway.pages.agents import words_for
from services.gateway.pages.entering import sealed
from services.gateway.pages.forms import Form
from services.gateway.pages.site import Site, Visit
from shared.contracts.auth import (
    Account,
    ChangeMe,
    DeleteMe,
    EndOtherSessions,
    EndSession,
    GetSignUpState,
    ListSessions,
)
from shared.contracts.ingest import ListDatasets
from shared.errors import NotFound, Refusal

site = Site()
PROFILE = {"name": 64, "email": 254, "email_password": 1_024}
PASSWORD = {"current_password": 1_024, "password": 1_024, "password_again": 1_024}
COUNTED_AT_MOST = 10_000


# -- name, address, password


@site.get("/settings")
async def settings(visit: Visit) -> web.Response:
    """What can be changed of the account."""
    state = await visit.ask(GetSignUpState())
    return visit.page("settings.html", wrong={}, state=state, section="")


@site.post("/settings")
async def change(visit: Visit) -> web.Response:
    """One section at a time."""
    if visit.form.get("section") == "password":
        return await _change_password(visit)
    return await _change_profile(visit, _viewer(visit))


async def _change_profile(visit: Visit, viewer: Account) -> web.Response:
    form = Form(visit, PROFILE, optional=("email_password",), called={"current_password": "email_password"})
    is_new_address = form["email"] != viewer.email
    if is_new_address and not form["email_password"]:
        form.mark("email_password", "A new address needs your password.")
    if not form.wrong and not is_new_address and form["name"] == viewer.name:
        return visit.go("/settings", "Nothing was changed.", kind="note")
    changed = await form.send(
        ChangeMe(
            name=form["name"] if form["name"] != viewer.name else None,
            email=form["email"] if is_new_address else None,
            current_password=sealed(visit, form["email_password"]),
        )
    )
    if changed is not None:
        return visit.go("/settings", "Your account is changed.")
    state = await visit.ask(GetSignUpState())
    return form.page("settings.html", state=state, section="profile")


async def _change_password(visit: Visit) -> web.Response:
    form = Form(visit, PASSWORD)
    form.twice("password", "password_again")
    changed = await form.send(
        ChangeMe(
            password=sealed(visit, form["password"]),
            current_password=sealed(visit, form["current_password"]),
        )
    )
    if changed is not None:
        return visit.go("/settings", "Your password is changed. Every other session has ended.")
    state = await visit.ask(GetSignUpState())
    return form.page("settings.html", state=state, section="password")


def _viewer(visit: Visit) -> Account:
    assert visit.viewer is not None
    return visit.viewer


# -- the end of the account


class Holdings(NamedTuple):
    """What goes with an account; `more`: there is more than was counted."""

    datasets: int
    readings: int
    more: bool


async def _holdings(visit: Visit) -> Holdings:
    datasets, readings, after = 0, 0, None
    while datasets < COUNTED_AT_MOST:
        page = await visit.ask(ListDatasets(limit=1_000, after=after))
        datasets += len(page.items)
        readings += sum(dataset.entries for dataset in page.items)
        after = page.next
        if after is None:
            break
    return Holdings(datasets, readings, after is not None)


@site.get("/settings/delete")
async def delete_form(visit: Visit) -> web.Response:
    """Says what goes."""
    return visit.page("settings_delete.html", wrong={}, holdings=await _holdings(visit))


@site.post("/settings/delete")
async def delete(visit: Visit) -> web.Response:
    """The account is gone at once, and can come back for a day."""
    form = Form(visit, {"password": 1_024})
    if await form.send(DeleteMe(password=sealed(visit, form["password"]))):
        cookie = await visit.gateway.browser.close(visit.incoming)
        words = "Your account is deleted. For 24 hours you can bring it back, with everything in it."
        return visit.go("/login", words, kind="note", cookies=(cookie,))
    return form.page("settings_delete.html", holdings=await _holdings(visit))


# -- where the account is signed in


@site.get("/sessions")
async def sessions(visit: Visit) -> web.Response:
    """This browser first, then the last used."""
    found = (await visit.ask(ListSessions())).items
    ordered = sorted(found, key=lambda session: not session.current)
    return visit.page("sessions.html", sessions=ordered, words_for=words_for)


@site.post("/sessions")
async def end_session(visit: Visit) -> web.Response:
    """One of them, or all but this one."""
    if visit.form.get("end") == "others":
        await visit.ask(EndOtherSessions())
        return visit.go("/sessions", "You are signed out everywhere but here.")
    try:
        wanted = UUID(visit.form.get("end", ""))
    except ValueError:
        raise NotFound("There is no such session.") from None
    try:
        await visit.ask(EndSession(session_id=wanted))
    except Refusal as refusal:
        if refusal.status != NotFound.status:
            raise
        return visit.go("/sessions", "That session had ended already.", kind="note")
    return visit.go("/sessions", "That session has ended.")
