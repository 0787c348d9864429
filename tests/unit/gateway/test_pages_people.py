"""Pages without a browser: who may look, what is sent, what is said of mistakes and failures."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest

from services.gateway.pages.site import POLICY
from services.gateway.pages.table import add_pages
from shared.bus.requests import CallFailed, OutcomeUnknown, Unavailable
from shared.contracts.auth import (
    ChangeMe,
    GetSignUpState,
    MakeInvitation,
    OpenSession,
    SetUp,
    SignUp,
    SignUpState,
)
from shared.contracts.base import FieldError, Message
from shared.errors import Invalid, NotFound, Refusal, TooMany
from shared.vault import Vault
from tests.unit.gateway.door import Answer, House, open_house

HTML = {"Accept": "text/html,application/xhtml+xml"}
OURS = {"Sec-Fetch-Site": "same-origin"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
EVIL = "<script>alert(1)</script>'\"&"
PASSWORD = "a window seat by the sea"
OWNER = {"name": "ann", "email": "ann@example.org", "password": PASSWORD, "password_again": PASSWORD}
ONCE = "0123456789abcdef0123"


async def get(pages: House, path: str, token: str | None = None, **headers: str) -> Answer:
    return await pages.request("GET", path, token=token, headers=HTML | headers, allow_redirects=False)


async def post(pages: House, path: str, form: dict[str, str], token: str | None = None) -> Answer:
    headers, data = HTML | OURS | FORM, urlencode(form)
    return await pages.request("POST", path, token=token, data=data, headers=headers, allow_redirects=False)


def answer_with(pages: House, kind: type[Message], answer: Callable[[Any, Any], Any]) -> None:
    """What auth answers from now on."""
    pages.services._handlers[kind] = answer


def not_set_up(pages: House, *, after_all: bool = False) -> None:
    state = SignUpState(set_up=after_all, sign_up="invitation", password_min_length=15)
    answer_with(pages, GetSignUpState, lambda query, caller: state)


def wrong(answer: Answer) -> dict[str, str]:
    """What stands beside the fields."""
    found = re.findall(r'<span class="wrong" id="(\w+)-says">([^<]*)</span>', answer.body.decode())
    return dict(found)


def values(answer: Answer) -> dict[str, str]:
    """What the fields of the page hold."""
    return dict(re.findall(r'<input id="(\w+)"[^>]* value="([^"]*)"', answer.body.decode()))


# -- who may look


@pytest.mark.parametrize("path", ["/settings", "/sessions", "/users", "/settings/delete"])
async def test_nobody_is_asked_to_sign_in_and_comes_back(pages: House, path: str) -> None:
    answer = await get(pages, f"{path}?a=b%26c")
    assert answer.status == 303
    assert answer.headers["Location"] == f"/login?next={path}%3Fa%3Db%2526c"


async def test_pages_for_administrators_are_for_them(pages: House) -> None:
    answer = await get(pages, "/users", pages.services.token(roles=[]))
    assert answer.status == 403
    assert "This is not for you" in answer.body.decode()
    assert (await get(pages, "/users", pages.services.token())).status == 200


async def test_a_page_loads_nothing_from_elsewhere_and_is_kept_by_nobody(pages: House) -> None:
    answer = await get(pages, "/login")
    assert answer.headers["Content-Security-Policy"] == POLICY
    assert "'unsafe" not in POLICY
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "same-origin"
    named = re.findall(r'(?:src|href|action)="([^"]+)"', answer.body.decode())
    assert named
    assert all(urlsplit(one).netloc == "" for one in named)


async def test_forms_come_from_our_own_pages_only(pages: House) -> None:
    for headers in (
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "http://elsewhere.invalid"},
        {"Origin": "null"},
        {},
    ):
        answer = await pages.request(
            "POST", "/login", headers=HTML | FORM | headers, data="name=ann&password=x"
        )
        assert answer.status == 403
        assert "The form came from elsewhere" in answer.body.decode()
    assert not [message for message, _ in pages.services.asked if isinstance(message, OpenSession)]


async def test_what_is_no_form_is_refused_with_a_page(pages: House) -> None:
    for body, kind, status in (
        (b"{}", "application/json", 415),
        (b"name=%ff", "application/x-www-form-urlencoded", 400),
        (b"name=" + b"a" * 300_000, "application/x-www-form-urlencoded", 413),
    ):
        headers = HTML | OURS | {"Content-Type": kind}
        answer = await pages.request("POST", "/login", headers=headers, data=body)
        assert answer.status == status
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"


async def test_what_came_encrypted_goes_back_encrypted_only(vault: Vault) -> None:
    async with open_house(vault, add_pages, trusted_proxies="127.0.0.1") as pages:
        for scheme, is_secure in (("https", True), ("http", False)):
            headers = HTML | OURS | {"X-Forwarded-Proto": scheme, "X-Forwarded-For": "203.0.113.9"}
            answer = await pages.request("POST", "/logout", headers=headers | FORM, allow_redirects=False)
            cookies = answer.headers.getall("Set-Cookie")
            assert len(cookies) == 2
            assert all(("; Secure" in cookie) == is_secure for cookie in cookies)


# -- the first account


async def test_an_empty_server_leads_to_its_setup(pages: House) -> None:
    not_set_up(pages)
    for path in ("/login", "/sign-up"):
        assert (await get(pages, path)).headers["Location"] == "/setup"
    answer = await get(pages, "/setup")
    assert "At least 15 characters." in answer.body.decode()
    assert 'id="code"' not in answer.body.decode()
    other = await get(pages, "/setup", Host="posthouse.example:8080")
    assert 'id="code"' in other.body.decode()


async def test_a_server_with_an_account_has_no_setup(pages: House) -> None:
    assert (await get(pages, "/setup")).headers["Location"] == "/"


async def test_the_first_account_is_made_with_what_was_typed(pages: House) -> None:
    not_set_up(pages)
    answer = await post(pages, "/setup", OWNER | {"name": " ann ", "_once": ONCE})
    command, _ = pages.services.last(SetUp)
    assert (command.name, command.email) == ("ann", "ann@example.org")
    assert pages.services.vault.unseal(command.password, "auth.password") == PASSWORD
    # Without Redis no browser can be signed in: the account is there all the same.
    assert answer.status == 303
    assert answer.headers["Location"] == "/login"
    not_set_up(pages, after_all=True)
    shown = await get(pages, "/login", Cookie=answer.headers["Set-Cookie"].partition(";")[0])
    assert "Your account is made. Please sign in." in shown.body.decode()
    assert "Max-Age=0" in shown.headers["Set-Cookie"]


async def test_every_field_that_is_empty_too_long_or_different_is_named(pages: House) -> None:
    not_set_up(pages)
    answer = await post(pages, "/setup", {"name": "x" * 65, "password": PASSWORD, "password_again": "y"})
    assert answer.status == 422
    assert wrong(answer) == {
        "name": "Please use at most 64 characters.",
        "email": "Please fill this in.",
        "password_again": "This differs from the first.",
    }
    assert PASSWORD not in answer.body.decode()
    assert re.search(r'<input id="name"[^>]* autofocus', answer.body.decode())
    assert not [message for message, _ in pages.services.asked if isinstance(message, SetUp)]


async def test_what_auth_finds_wrong_stands_beside_its_field(pages: House) -> None:
    not_set_up(pages)
    found = [
        FieldError(path="email", code="invalid", message="must be an address"),
        FieldError(path="password", code="too_common", message="is among the first"),
        FieldError(path="password", code="same", message="is the second mistake"),
    ]
    pages.services.failing[SetUp.topic] = Invalid("no", errors=found)
    answer = await post(pages, "/setup", OWNER | {"name": EVIL})
    assert wrong(answer) == {"email": "This must be an address.", "password": "This is among the first."}
    assert values(answer)["email"] == "ann@example.org"
    assert "<script>alert" not in answer.body.decode()
    assert re.search(r'<input id="email"[^>]* aria-invalid="true"', answer.body.decode())
    assert re.search(r'<input id="email"[^>]* autofocus', answer.body.decode())
    assert 'role="alert"' in answer.body.decode()


async def test_from_elsewhere_the_code_is_needed(pages: House) -> None:
    not_set_up(pages)
    headers = HTML | OURS | FORM | {"Host": "posthouse.example"}
    for code in ("", "AAAA-BBBB-CCCC-DDDD"):
        answer = await pages.request(
            "POST", "/setup", headers=headers, data=urlencode(OWNER | {"code": code}), allow_redirects=False
        )
        assert answer.status == 422
        assert set(wrong(answer)) == {"code"}
    assert not [message for message, _ in pages.services.asked if isinstance(message, SetUp)]


# -- signing in


async def test_a_wrong_password_is_no_http_authentication(pages: House) -> None:
    answer = await post(pages, "/login", {"name": "ann", "password": "not this one", "next": "/users"})
    assert answer.status == 422
    assert "WWW-Authenticate" not in answer.headers
    assert values(answer)["name"] == "ann"
    assert 'name="next" value="/users"' in answer.body.decode()
    assert "not this one" not in answer.body.decode()


@pytest.mark.parametrize(
    ("wanted", "place"),
    [
        ("/users?after=1", "/users?after=1"),
        ("//elsewhere.invalid", "/"),
        ("/\\elsewhere.invalid", "/"),
        ("https://elsewhere.invalid", "/"),
        ("javascript:alert(1)", "/"),
        ("/\r\nSet-Cookie: a=b", "/"),
        ("/\t/elsewhere.invalid", "/"),
        ("//[", "/"),
        ("/ä", "/"),
        ("", "/"),
    ],
)
async def test_who_is_signed_in_goes_on_to_a_page_of_ours(pages: House, wanted: str, place: str) -> None:
    answer = await get(pages, f"/login?{urlencode({'next': wanted})}", pages.services.token())
    assert (answer.status, answer.headers["Location"]) == (303, place)


async def test_too_many_attempts_say_how_long_to_wait(pages: House) -> None:
    pages.services.failing[OpenSession.topic] = TooMany("There were too many attempts.", retry_after=77)
    answer = await post(pages, "/login", {"name": "ann", "password": PASSWORD})
    assert answer.status == 429
    assert answer.headers["Retry-After"] == "77"
    assert "There were too many attempts." in answer.body.decode()
    assert values(answer)["name"] == "ann"


async def test_an_address_that_tries_too_often_waits(vault: Vault) -> None:
    async with open_house(vault, add_pages, rate_sign_in="3/600") as pages:
        for path in ("/login", "/sign-up", "/restore"):
            assert (await post(pages, path, {"name": "ann"})).status == 422
        answer = await post(pages, "/login", {"name": "ann"})
        assert answer.status == 429
        assert "Too much at once" in answer.body.decode()
        assert 0 < int(answer.headers["Retry-After"]) <= 200
        assert (await get(pages, "/login")).status == 200


@pytest.mark.parametrize("failure", [Unavailable("no"), OutcomeUnknown("no")])
async def test_a_failure_keeps_what_was_typed_and_tries_the_same_again(
    pages: House, failure: CallFailed
) -> None:
    pages.services.failing[OpenSession.topic] = failure
    answer = await post(pages, "/login", {"name": "ann", "password": PASSWORD, "_once": ONCE})
    assert answer.status == failure.status
    assert values(answer)["name"] == "ann"
    assert f'name="_once" value="{ONCE}"' in answer.body.decode()
    refused = await post(pages, "/login", {"name": "", "password": PASSWORD, "_once": ONCE})
    assert f'name="_once" value="{ONCE}"' not in refused.body.decode()


async def test_a_form_sent_twice_is_one_request_and_something_else_typed_is_another(pages: House) -> None:
    ids = []

    def reused(command: SignUp, caller: Any) -> Any:
        ids.append(caller.id)
        if len(ids) % 2:
            raise Refusal("other body", code="key_reused", status=422)
        raise NotFound("the second attempt came through")

    answer_with(pages, SignUp, reused)
    form = OWNER | {"invitation": "phi_x", "_once": ONCE}
    for _ in range(2):
        answer = await post(pages, "/sign-up", form)
        assert "the second attempt came through" in answer.body.decode()
        pages.services.asked.clear()
    assert len(set(ids)) == 3
    assert ids[0] == ids[2]


async def test_an_invitation_is_taken_as_link_or_by_itself(pages: House) -> None:
    for typed in ("phi_of-bob", f"{pages.url}/sign-up?invitation=phi_of-bob&x=1", "  phi_of-bob "):
        await post(pages, "/sign-up", OWNER | {"invitation": typed})
        command, _ = pages.services.last(SignUp)
        assert pages.services.vault.unseal(command.invitation, "auth.invitation") == "phi_of-bob"


async def test_a_closed_server_says_so(pages: House) -> None:
    state = SignUpState(set_up=True, sign_up="closed", password_min_length=15)
    answer_with(pages, GetSignUpState, lambda query, caller: state)
    assert "Nobody can sign up here" in (await get(pages, "/sign-up")).body.decode()
    assert "New here?" not in (await get(pages, "/login")).body.decode()


# -- settings and people


async def test_the_password_of_an_address_is_asked_beside_it(pages: House) -> None:
    token = pages.services.token()
    form = {"section": "profile", "name": "ann", "email": "new@example.org"}
    answer = await post(pages, "/settings", form, token)
    assert set(wrong(answer)) == {"email_password"}
    found = [FieldError(path="current_password", code="wrong", message="is not the password")]
    pages.services.failing[ChangeMe.topic] = Invalid("no", errors=found)
    answer = await post(pages, "/settings", form | {"email_password": PASSWORD}, token)
    assert wrong(answer) == {"email_password": "This is not the password."}
    assert values(answer)["email"] == "new@example.org"


async def test_an_invitation_is_shown_once(pages: House) -> None:
    token = pages.services.token()
    answer = await post(pages, "/users/invitations", {"note": EVIL, "days": "30"}, token)
    assert f"{pages.url}/sign-up?invitation=phi_of-bob" in answer.body.decode()
    assert pages.services.last(MakeInvitation)[0].days == 30
    assert "phi_of-bob" not in (await get(pages, "/users", token)).body.decode()
    await post(pages, "/users/invitations", {"days": "45"}, token)
    assert pages.services.last(MakeInvitation)[0].days == 7


# -- those who are lost, and what fails


async def test_people_get_pages_and_programs_get_problems(pages: House) -> None:
    page = await get(pages, "/no/such/page")
    assert page.status == 404
    assert "There is nothing here" in page.body.decode()
    for path, headers in (("/no/such/page", {}), ("/v1/nothing", HTML), ("/docs/nothing", HTML)):
        answer = await pages.request("GET", path, headers=headers)
        assert answer.status == 404
        assert answer.headers["Content-Type"] == "application/problem+json"
    assert (await pages.request("POST", "/no/such/page", headers=HTML)).json["code"] == "not_found"
    sent = await get(pages, "/logout")
    assert sent.status == 405
    assert sent.headers["Allow"] == "OPTIONS, POST"
    assert sent.headers["Content-Type"] == "text/html; charset=utf-8"


async def test_a_mistake_of_ours_is_a_page_with_its_number(pages: House) -> None:
    pages.services.failing[GetSignUpState.topic] = RuntimeError("a secret detail")
    answer = await get(pages, "/login", **{"X-Request-Id": "req-1234567890"})
    assert answer.status == 500
    text = answer.body.decode()
    assert "A mistake on our side" in text
    assert "req-1234567890" in text
    assert "secret detail" not in text


async def test_what_is_away_is_said_with_a_way_to_try_again(pages: House) -> None:
    pages.services.failing[GetSignUpState.topic] = Unavailable("no", retry_after=3)
    answer = await get(pages, "/login?next=/users")
    assert answer.status == 503
    assert answer.headers["Retry-After"] == "3"
    assert 'href="/login?next=/users"' in answer.body.decode()
