"""The way in and out: the first account, signing in, making an account, coming back."""

from __future__ import annotations

from aiohttp import web

from services.gateway.http.elsewhere import is_setup_code, needs_setup_code
from services.gateway.http.rates import SIGN_IN
from services.gateway.pages.entering import enter, restoring, sealed
from services.gateway.pages.forms import Form
from services.gateway.pages.site import Site, Visit
from shared.bus.requests import CallFailed
from shared.contracts.auth import GetSignUpState, SetUp, SignUp, SignUpState
from shared.errors import Refusal

site = Site()
NAMED = {"name": 64, "email": 254, "password": 1_024, "password_again": 1_024}
MADE = "Your account is made."
ENTERING = {"name": 254, "password": 1_024}


# -- the first account


@site.get("/setup", who="anyone")
async def setup(visit: Visit) -> web.Response:
    """Only while there is no account."""
    state = await visit.ask(GetSignUpState())
    if state.set_up:
        return visit.go("/")
    return visit.page("setup.html", wrong={}, state=state, needs_code=needs_setup_code(visit.incoming))


@site.post("/setup", who="anyone", rate=SIGN_IN)
async def set_up(visit: Visit) -> web.Response:
    """Makes the account and signs it in."""
    needs_code = needs_setup_code(visit.incoming)
    form = Form(visit, {"code": 64} | NAMED if needs_code else NAMED)
    form.twice("password", "password_again")
    if needs_code and form["code"] and not is_setup_code(visit.gateway.vault, form["code"]):
        form.mark("code", "This is not the code that ./posthouse up printed on the server.")
    if await form.send(
        SetUp(name=form["name"], email=form["email"], password=sealed(visit, form["password"]))
    ):
        return await _welcome(visit, form, MADE, "Next: a dataset for your readings.")
    state = await visit.ask(GetSignUpState())
    if state.set_up:
        return visit.go("/login", "The first account was made already: sign in with it.", kind="note")
    return form.page("setup.html", state=state, needs_code=needs_code)


async def _welcome(visit: Visit, form: Form, is_so: str, words: str) -> web.Response:
    """The account is there: if signing in fails now, it will not a moment later."""
    try:
        cookies = await enter(visit, form["name"], form["password"])
    except (Refusal, CallFailed):
        return visit.go("/login", f"{is_so} Please sign in.")
    return visit.go("/", f"{is_so} {words}", cookies=cookies)


# -- signing in and out


@site.get("/login", who="anyone")
async def login(visit: Visit) -> web.Response:
    """Where everything leads that needs somebody."""
    state = await visit.ask(GetSignUpState())
    if not state.set_up:
        return visit.go("/setup")
    if visit.viewer is not None:
        return visit.go(visit.own_path())
    return visit.page("login.html", wrong={}, state=state, next=visit.own_path())


@site.post("/login", who="anyone", rate=SIGN_IN)
async def sign_in(visit: Visit) -> web.Response:
    """One answer for a name nobody has and for a wrong password."""
    form = Form(visit, ENTERING)
    if not form.wrong:
        try:
            cookies = await enter(visit, form["name"], form["password"])
            return visit.go(visit.own_path(), cookies=cookies)
        except (Refusal, CallFailed) as error:
            form.blame(error)
    state = await _state(visit)
    return form.page("login.html", state=state, next=visit.own_path())


async def _state(visit: Visit) -> SignUpState | None:
    """What the page says beside the form can be left out."""
    try:
        return await visit.ask(GetSignUpState())
    except CallFailed:
        return None


@site.post("/logout", who="anyone")
async def sign_out(visit: Visit) -> web.Response:
    """Ends the session here and in auth."""
    cookie = await visit.gateway.browser.close(visit.incoming)
    return visit.go("/login", "You are signed out.", kind="note", cookies=(cookie,))


# -- making an account


@site.get("/sign-up", who="anyone")
async def sign_up_form(visit: Visit) -> web.Response:
    """As far as the setting lets one."""
    state = await visit.ask(GetSignUpState())
    if not state.set_up:
        return visit.go("/setup")
    if visit.viewer is not None:
        return visit.go("/", "You are signed in already.", kind="note")
    return visit.page("sign_up.html", wrong={}, state=state, invitation=visit.query.get("invitation", ""))


@site.post("/sign-up", who="anyone", rate=SIGN_IN)
async def sign_up(visit: Visit) -> web.Response:
    """Makes the account and signs it in."""
    state = await visit.ask(GetSignUpState())
    optional = () if state.sign_up == "invitation" else ("invitation",)
    form = Form(visit, {"invitation": 500} | NAMED, optional=optional)
    form.twice("password", "password_again")
    invitation = _invitation(form["invitation"])
    made = await form.send(
        SignUp(
            name=form["name"],
            email=form["email"],
            password=sealed(visit, form["password"]),
            invitation=visit.gateway.vault.seal(invitation, "auth.invitation") if invitation else b"",
        )
    )
    if made is not None:
        return await _welcome(visit, form, MADE, f"Welcome, {made.name}.")
    return form.page("sign_up.html", state=state, invitation=invitation)


def _invitation(text: str) -> str:
    """People paste the link as often as what it holds."""
    return text.partition("invitation=")[2].partition("&")[0] or text


# -- coming back


@site.get("/restore", who="anyone")
async def restore_form(visit: Visit) -> web.Response:
    """For a day after an account was deleted."""
    return visit.page("restore.html", wrong={})


@site.post("/restore", who="anyone", rate=SIGN_IN)
async def restore(visit: Visit) -> web.Response:
    """Undoes the deletion and signs in."""
    form = Form(visit, ENTERING)
    account = await form.send(restoring(visit, form["name"], form["password"]))
    if account is None:
        return form.page("restore.html")
    return await _welcome(visit, form, "Your account is back.", "Everything that belongs to it is, too.")
