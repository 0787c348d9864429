"""The pages about people, as people use them: they type, click and read, and so does this."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from playwright.async_api import Browser, Page, expect

from deploy.identity import setup_code
from tests.journeys.browser import Windows, check_access, check_width, noticed, sign_in
from tests.journeys.conftest import Posthouse
from tests.journeys.instance import OwnPosthouse, own_posthouse
from tests.journeys.looks import NARROWEST, SIZES, THEMES, WIDEST, take

pytestmark = pytest.mark.timeout(180)

PASSWORD = "a window seat by the sea"
COMMON = "passwordpassword"
WRONG = "The name or the password is wrong."


async def fill(page: Page, **texts: str) -> None:
    """Type into fields by their names; labels are read where a test is about them."""
    for name, text in texts.items():
        await page.locator(f"#{name}").fill(text)


async def press(page: Page, button: str) -> None:
    await page.get_by_role("button", name=button, exact=True).click()


def told(page: Page) -> Any:
    """What the page says about what was just done."""
    return page.locator("main > .told")


def wrong(page: Page, field: str) -> Any:
    """What stands beside a field that has a mistake."""
    return page.locator(f"#{field}-says.wrong")


# -- the first account, on an instance of its own


@pytest.fixture(scope="module")
async def blank(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[OwnPosthouse]:
    """An instance that nobody has set up."""
    async with own_posthouse(tmp_path_factory.mktemp("blank")) as posthouse:
        yield posthouse


@pytest.fixture
async def new_owner(browser: Browser, blank: OwnPosthouse) -> AsyncIterator[Windows]:
    """Windows on it, with no account there."""
    await blank.sql("TRUNCATE auth.account, auth.first_account CASCADE")
    windows = Windows(browser, blank.url)
    yield windows
    await windows.close()


OWNER = {"name": "ann", "email": "ann@example.org", "password": PASSWORD, "password_again": PASSWORD}


async def test_a_new_server_asks_for_its_first_account(new_owner: Windows) -> None:
    page = await new_owner()
    await page.goto("/")
    await expect(page).to_have_url(re.compile("/setup$"))
    await expect(page.get_by_label("Name", exact=True)).to_be_focused()
    await expect(page.get_by_text("At least 15 characters.")).to_be_visible()
    await expect(page.locator("#code")).to_have_count(0)

    noticed(page).allow(422, "/setup")
    await fill(page, **OWNER | {"password": COMMON, "password_again": COMMON})
    await press(page, "Make the account")
    await expect(wrong(page, "password")).to_contain_text("anybody would try first")
    await expect(page.locator("#password")).to_be_focused()
    await expect(page.locator("#password")).to_have_value("")
    await expect(page.locator("#name")).to_have_value("ann")
    await expect(page.locator("#email")).to_have_value("ann@example.org")

    await fill(page, password=PASSWORD, password_again=PASSWORD)
    await press(page, "Make the account")
    await expect(told(page)).to_contain_text("Your account is made.")
    await expect(page.locator(".who")).to_contain_text("ann")
    await expect(page.get_by_role("link", name="Users")).to_be_visible()

    await page.goto("/setup")
    await expect(page).to_have_url(re.compile("/$"))
    stranger = await new_owner()
    await stranger.goto("/setup")
    await expect(stranger).to_have_url(re.compile("/login"))


async def test_every_mistake_of_the_form_is_said_at_once(new_owner: Windows) -> None:
    page = await new_owner(javascript=False)
    noticed(page).allow(422, "/setup")
    await page.goto("/setup")
    # A browser would stop most of these itself: what it lets through, the server still sees.
    await page.locator("form.panel").evaluate("(form) => { form.noValidate = true; }")
    await fill(page, name="a@b", email="nowhere", password=COMMON, password_again="something else")
    await press(page, "Make the account")
    await expect(wrong(page, "password_again")).to_have_text("This differs from the first.")
    await page.locator("form.panel").evaluate("(form) => { form.noValidate = true; }")
    await fill(page, password=COMMON, password_again=COMMON)
    await press(page, "Make the account")
    await expect(wrong(page, "name")).to_contain_text("@")
    await expect(wrong(page, "email")).to_contain_text("ann@example.org")
    await expect(wrong(page, "password")).to_be_visible()
    await expect(page.locator("#name")).to_be_focused()


async def test_set_up_with_nothing_but_the_keyboard(new_owner: Windows) -> None:
    page = await new_owner()
    await page.goto("/")
    await expect(page.locator("#name")).to_be_focused()
    keys = page.keyboard
    for text in ("ann", "ann@example.org", PASSWORD):
        await keys.type(text)
        await keys.press("Tab")
    # The button that shows what was typed is between the two fields.
    await keys.press("Space")
    await expect(page.locator("#password")).to_have_attribute("type", "text")
    await keys.press("Space")
    await expect(page.locator("#password")).to_have_attribute("type", "password")
    await keys.press("Tab")
    await keys.type(PASSWORD)
    await keys.press("Enter")
    await expect(told(page)).to_contain_text("Your account is made.")


async def test_set_up_without_a_script(new_owner: Windows) -> None:
    page = await new_owner(javascript=False)
    await page.goto("/")
    await fill(page, **OWNER)
    await press(page, "Make the account")
    await expect(told(page)).to_contain_text("Your account is made.")
    await press(page, "Sign out")
    await fill(page, name="ann@example.org", password=PASSWORD)
    await press(page, "Sign in")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Datasets")


async def test_from_elsewhere_it_takes_the_code_that_up_printed(
    blank: OwnPosthouse, new_owner: Windows
) -> None:
    page = await new_owner(extra_http_headers={"X-Forwarded-For": "203.0.113.9"})
    await page.goto("/setup")
    await expect(page.get_by_label("Setup code")).to_be_focused()
    noticed(page).allow(422, "/setup")
    await fill(page, code="AAAA-BBBB", **OWNER)
    await press(page, "Make the account")
    await expect(wrong(page, "code")).to_contain_text("not the code")
    code = setup_code(blank.secret_key)
    await fill(page, code=code.lower().replace("-", " "), password=PASSWORD, password_again=PASSWORD)
    await press(page, "Make the account")
    await expect(told(page)).to_contain_text("Your account is made.")


async def test_the_last_administrator_is_not_offered_to_leave(new_owner: Windows) -> None:
    page = await new_owner()
    await page.goto("/")
    await fill(page, **OWNER)
    await press(page, "Make the account")
    await page.get_by_role("link", name="Users").click()
    rows = page.locator("tbody tr")
    await expect(rows).to_have_count(1)
    await expect(rows).to_contain_text("administrator")
    await expect(rows.get_by_role("button")).to_have_count(0)
    await expect(rows.get_by_role("link")).to_have_count(0)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}px")
async def test_the_first_page_looks_like_one(
    browser: Browser, new_owner: Windows, size: tuple[int, int]
) -> None:
    page = await new_owner(size=size, extra_http_headers={"X-Forwarded-For": "203.0.113.9"})
    for theme in THEMES:
        await page.emulate_media(color_scheme=theme)
        await page.goto("/setup")
        await take(browser, page, "setup", theme)
        await check_access(page)
    for width in (NARROWEST, WIDEST):
        await check_width(page, width)


# -- signing in and out


async def test_who_is_unknown_and_who_is_wrong_read_the_same(page: Page, person: dict[str, str]) -> None:
    noticed(page).allow(422, "/login")
    await page.goto("/login")
    said = []
    for name in (person["POSTHOUSE_NAME"], f"nobody-{uuid4().hex[:8]}"):
        await fill(page, name=name, password="not the password of anybody")
        await press(page, "Sign in")
        await expect(page.get_by_role("alert")).to_have_text(WRONG)
        await expect(page.locator("#name")).to_have_value(name)
        await expect(page.locator("#password")).to_have_value("")
        await expect(page.locator("#password")).to_be_focused()
        said.append((await page.locator("form.panel").inner_text(), await page.locator(".wrong").count()))
    assert said[0] == said[1]


async def test_signing_in_leads_where_one_wanted_to_go_and_never_elsewhere(
    new_page: Windows, person: dict[str, str]
) -> None:
    page = await new_page()
    await page.goto("/sessions")
    await expect(page).to_have_url(re.compile(r"/login\?next=/sessions$"))
    await fill(page, name=person["POSTHOUSE_NAME"], password=person["POSTHOUSE_PASSWORD"])
    await press(page, "Sign in")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Sessions")
    for elsewhere in ("//elsewhere.invalid/", "https://elsewhere.invalid/", "/\\elsewhere.invalid"):
        other = await new_page()
        await other.goto(f"/login?next={elsewhere}")
        await fill(other, name=person["POSTHOUSE_NAME"], password=person["POSTHOUSE_PASSWORD"])
        await press(other, "Sign in")
        await expect(other.get_by_role("heading", level=1)).to_have_text("Datasets")


async def test_signing_in_with_nothing_but_the_keyboard(page: Page, person: dict[str, str]) -> None:
    await page.goto("/login")
    await expect(page.locator("#name")).to_be_focused()
    await page.keyboard.type(person["POSTHOUSE_NAME"])
    await page.keyboard.press("Tab")
    await page.keyboard.type(person["POSTHOUSE_PASSWORD"])
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Datasets")
    # The first stop of the keyboard leads past the header.
    await page.keyboard.press("Tab")
    await expect(page.get_by_text("Skip to the content")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.locator("main")).to_be_focused()


async def test_signing_out_ends_it_on_this_browser(signed_in: Page) -> None:
    cookies = {cookie["name"]: cookie for cookie in await signed_in.context.cookies()}
    session, device = cookies["posthouse"], cookies["posthouse_device"]
    assert session["httpOnly"]
    assert session["sameSite"] == "Lax"
    assert device["httpOnly"]
    left = timedelta(seconds=device["expires"] - datetime.now().timestamp())
    assert timedelta(days=360) < left < timedelta(days=366)

    await press(signed_in, "Sign out")
    await expect(told(signed_in)).to_have_text("You are signed out.")
    await signed_in.goto("/settings")
    await expect(signed_in).to_have_url(re.compile("/login"))
    # The device stays known, and the cookie of before opens nothing.
    names = {cookie["name"] for cookie in await signed_in.context.cookies()}
    assert "posthouse_device" in names
    await signed_in.context.add_cookies([session])
    await signed_in.goto("/settings")
    await expect(signed_in).to_have_url(re.compile("/login"))


async def test_what_is_typed_can_be_seen_and_is_hidden_again_when_sent(
    page: Page, person: dict[str, str]
) -> None:
    noticed(page).allow(422, "/login")
    await page.goto("/login")
    await fill(page, name=person["POSTHOUSE_NAME"], password="let me see this")
    await press(page, "Show: Password")
    await expect(page.locator("#password")).to_have_attribute("type", "text")
    await press(page, "Hide: Password")
    await expect(page.locator("#password")).to_have_attribute("type", "password")
    await press(page, "Show: Password")
    await press(page, "Sign in")
    await expect(page.locator("#password")).to_have_attribute("type", "password")


async def test_a_page_that_is_cut_off_says_so(signed_in: Page) -> None:
    await signed_in.context.set_offline(True)
    await expect(signed_in.locator("#offline")).to_be_visible()
    await signed_in.context.set_offline(False)
    await expect(signed_in.locator("#offline")).to_be_hidden()


# -- others come by invitation


class Somebody:
    """A person who has come by invitation."""

    def __init__(self, page: Page, name: str) -> None:
        self.page = page
        self.name = name

    @property
    def known(self) -> dict[str, str]:
        """As the helpers take it."""
        return {"POSTHOUSE_NAME": self.name, "POSTHOUSE_PASSWORD": PASSWORD}


@pytest.fixture
async def somebody(new_page: Windows, posthouse: Posthouse, token: str) -> Somebody:
    """An account of this test alone, signed in in a window of its own."""
    name = f"bob-{uuid4().hex[:6]}"
    secret = posthouse.ask("/v1/invitations", {}, token)["secret"]
    account = {"name": name, "email": f"{name}@example.org", "password": PASSWORD, "invitation": secret}
    posthouse.ask("/v1/users", account)
    found = Somebody(await new_page(), name)
    await sign_in(found.page, found.known)
    return found


async def test_an_invitation_makes_one_account(new_page: Windows, signed_in: Page) -> None:
    await signed_in.context.grant_permissions(["clipboard-read", "clipboard-write"])
    name = f"eve-{uuid4().hex[:6]}"
    await signed_in.get_by_role("link", name="Users").click()
    await signed_in.get_by_role("textbox", name="For").fill(f"{name} from next door")
    await press(signed_in, "Make the link")
    link = await signed_in.get_by_label("Link of the invitation").input_value()
    await press(signed_in, "Copy")
    await expect(signed_in.get_by_role("button", name="Copied")).to_be_visible()
    assert await signed_in.evaluate("navigator.clipboard.readText()") == link
    await expect(signed_in.get_by_role("cell", name=f"{name} from next door", exact=True)).to_be_visible()

    page = await new_page()
    await page.goto(link)
    await expect(page.get_by_text("You are invited.")).to_be_visible()
    await fill(page, **OWNER | {"name": name, "email": f"{name}@example.org"})
    await press(page, "Make the account")
    await expect(told(page)).to_contain_text(f"Welcome, {name}.")
    await expect(page.get_by_role("link", name="Users")).to_have_count(0)

    noticed(page).allow(403, "/users")
    await page.goto("/users")
    await expect(page.get_by_role("heading", level=1)).to_have_text("This is not for you")

    late = await new_page()
    noticed(late).allow(403, "/sign-up")
    await late.goto(link)
    await fill(late, **OWNER | {"name": f"{name}-2", "email": f"{name}-2@example.org"})
    await press(late, "Make the account")
    await expect(late.get_by_role("alert")).to_contain_text("over or was used")
    await expect(late.locator("#name")).to_have_value(f"{name}-2")


async def test_a_name_that_is_taken_is_said_beside_the_field(
    posthouse: Posthouse, token: str, new_page: Windows, person: dict[str, str]
) -> None:
    secret = posthouse.ask("/v1/invitations", {}, token)["secret"]
    page = await new_page()
    noticed(page).allow(422, "/sign-up")
    noticed(page).allow(409, "/sign-up")
    await page.goto("/sign-up")
    # The whole link is as good as what it holds.
    await page.get_by_label("Invitation").fill(f"{posthouse.url}/sign-up?invitation={secret}")
    await fill(page, **OWNER | {"name": person["POSTHOUSE_NAME"], "email": "free@example.org"})
    await press(page, "Make the account")
    await expect(page.get_by_role("alert")).to_be_visible()
    await expect(page.locator("#email")).to_have_value("free@example.org")


async def test_an_invitation_is_taken_back(new_page: Windows, signed_in: Page) -> None:
    note = f"a mistake {uuid4().hex[:6]}"
    await signed_in.goto("/users")
    await signed_in.get_by_role("textbox", name="For").fill(note)
    await press(signed_in, "Make the link")
    link = await signed_in.get_by_label("Link of the invitation").input_value()
    await press(signed_in, f"Take back the invitation for {note}")
    await expect(told(signed_in)).to_have_text("The invitation is taken back.")
    await expect(signed_in.get_by_role("cell", name=note, exact=True)).to_have_count(0)
    page = await new_page()
    noticed(page).allow(403, "/sign-up")
    await page.goto(link)
    await fill(page, **OWNER | {"name": uuid4().hex, "email": "late@example.org"})
    await press(page, "Make the account")
    await expect(page.get_by_role("alert")).to_be_visible()


# -- one's own account


async def test_a_name_changes_by_itself_and_an_address_with_the_password(somebody: Somebody) -> None:
    page, name = somebody.page, f"{somebody.name}-new"
    await page.goto("/settings")
    await fill(page, name=name)
    await press(page, "Save")
    await expect(told(page)).to_have_text("Your account is changed.")
    await expect(page.locator(".who")).to_contain_text(name)

    noticed(page).allow(422, "/settings")
    await fill(page, email=f"{name}@example.net")
    await press(page, "Save")
    await expect(wrong(page, "email_password")).to_have_text("A new address needs your password.")
    await expect(page.locator("#email")).to_have_value(f"{name}@example.net")
    await fill(page, email_password="not my password at all")
    await press(page, "Save")
    await expect(wrong(page, "email_password")).to_be_visible()
    await fill(page, email_password=PASSWORD)
    await press(page, "Save")
    await expect(told(page)).to_have_text("Your account is changed.")
    await expect(page.locator("#email")).to_have_value(f"{name}@example.net")
    await press(page, "Save")
    await expect(told(page)).to_have_text("Nothing was changed.")


async def test_a_new_password_ends_the_other_sessions(somebody: Somebody, new_page: Windows) -> None:
    page, other = somebody.page, await new_page()
    await sign_in(other, somebody.known)
    await page.goto("/settings")
    noticed(page).allow(422, "/settings")
    new = "another seat, by the door"
    await fill(page, current_password="what was it again?", password=new, password_again=new)
    await press(page, "Change the password")
    await expect(wrong(page, "current_password")).to_be_visible()
    await expect(page.locator("#current_password")).to_be_focused()
    await fill(page, current_password=PASSWORD, password=new, password_again=new)
    await press(page, "Change the password")
    await expect(told(page)).to_contain_text("Every other session has ended.")

    await gone(other)
    noticed(other).allow(422, "/login")
    await fill(other, name=somebody.name, password=PASSWORD)
    await press(other, "Sign in")
    await expect(other.get_by_role("alert")).to_have_text(WRONG)
    await fill(other, password=new)
    await press(other, "Sign in")
    await expect(other.get_by_role("heading", level=1)).to_have_text("Settings")


async def gone(page: Page) -> None:
    """Within a second or so every gateway knows that a session has ended."""
    end = asyncio.get_running_loop().time() + 10
    while "/login" not in page.url:
        assert asyncio.get_running_loop().time() < end, "still signed in"
        await page.goto("/settings")


async def test_passwords_that_differ_are_not_sent(somebody: Somebody) -> None:
    page = somebody.page
    await page.goto("/settings")
    await fill(page, current_password=PASSWORD, password="one password of many", password_again="another one")
    await press(page, "Change the password")
    words = await page.locator("#password_again").evaluate("(input) => input.validationMessage")
    assert words == "This differs from the first."


async def test_sessions_are_listed_and_end_one_by_one_or_all_at_once(
    somebody: Somebody, new_page: Windows
) -> None:
    page = somebody.page
    agent = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
    second, third = await new_page(user_agent=agent), await new_page()
    for other in (second, third):
        await sign_in(other, somebody.known)
    await page.goto("/sessions")
    rows = page.locator("tbody tr")
    await expect(rows).to_have_count(3)
    await expect(rows.first).to_contain_text("this browser")
    row = rows.filter(has_text="Firefox on Linux")
    await expect(row.locator("time").first).to_have_attribute("title", re.compile(r"20\d\d"))
    await row.get_by_role("button", name="End").click()
    await expect(told(page)).to_have_text("That session has ended.")
    await expect(rows).to_have_count(2)
    await gone(second)
    await press(page, "Sign out everywhere but here")
    await expect(rows).to_have_count(1)
    await gone(third)
    await page.goto("/sessions")
    await expect(rows).to_have_count(1)


async def test_a_deleted_account_names_what_goes_and_comes_back(
    posthouse: Posthouse, somebody: Somebody
) -> None:
    page = somebody.page
    opened = posthouse.ask("/v1/sessions", {"name": somebody.name, "password": PASSWORD})
    own = str(opened["access_token"])
    for name, count in (("attic", 2), ("cellar", 1)):
        dataset = posthouse.ask("/v1/datasets", {"name": name, "variables": [{"tag": "t"}]}, own)["id"]
        readings = [{"values": {"t": number}} for number in range(count)]
        posthouse.ask(f"/v1/datasets/{dataset}/readings", readings, own)

    await page.goto("/settings")
    await page.get_by_role("link", name=re.compile("Delete the account")).click()
    await expect(page.get_by_text("2 datasets with 3 readings go with it.")).to_be_visible()
    noticed(page).allow(422, "/settings/delete")
    await fill(page, password="surely not this one")
    await press(page, "Delete the account")
    await expect(wrong(page, "password")).to_be_visible()
    await fill(page, password=PASSWORD)
    await press(page, "Delete the account")
    await expect(told(page)).to_contain_text("For 24 hours you can bring it back")

    noticed(page).allow(403, "/login")
    await fill(page, name=somebody.name, password=PASSWORD)
    await press(page, "Sign in")
    await expect(page.get_by_role("alert")).to_contain_text("This account was deleted")
    await page.get_by_role("link", name="Bring it back").click()
    noticed(page).allow(422, "/restore")
    await fill(page, name=somebody.name, password="surely not this one")
    await press(page, "Bring it back")
    await expect(page.get_by_role("alert")).to_have_text(WRONG)
    await fill(page, password=PASSWORD)
    await press(page, "Bring it back")
    await expect(told(page)).to_contain_text("Your account is back.")
    await expect(page.locator(".who")).to_contain_text(somebody.name)
    await page.goto("/settings/delete")

    async def are_back() -> bool:
        await page.reload()
        return await page.get_by_text("2 datasets with 3 readings go with it.").count() == 1

    for _ in range(50):
        if await are_back():
            return
    pytest.fail("the datasets did not come back")


# -- for administrators


async def test_an_administrator_makes_deletes_and_restores(
    signed_in: Page, somebody: Somebody, new_page: Windows
) -> None:
    name = somebody.name
    await signed_in.goto("/users")
    row = signed_in.locator("tbody tr").filter(has_text=name).first
    await press(signed_in, f"Make {name} administrator")
    await expect(told(signed_in)).to_contain_text(f"{name} is an administrator")
    await expect(row).to_contain_text("administrator")
    second = await new_page()
    await sign_in(second, somebody.known, "/users")
    await expect(second.get_by_role("heading", level=1)).to_have_text("Users")

    # What takes something away asks first.
    await press(signed_in, f"Remove {name} as administrator")
    dialog = signed_in.get_by_role("dialog")
    await expect(dialog).to_contain_text(f"{name} will not be an administrator any more")
    await dialog.get_by_role("button", name="Cancel").click()
    await expect(dialog).to_have_count(0)
    await press(signed_in, f"Remove {name} as administrator")
    await dialog.get_by_role("button", name="Remove as administrator").click()
    await expect(told(signed_in)).to_contain_text("is no administrator any more")
    await gone(second)

    await row.get_by_role("link", name=re.compile("Delete")).click()
    await expect(signed_in.get_by_role("heading", level=1)).to_have_text(f"Delete the account “{name}”?")
    await expect(signed_in.get_by_text("All datasets and readings of")).to_be_visible()
    await press(signed_in, "Delete the account")
    await expect(told(signed_in)).to_contain_text("For 24 hours it can be restored")
    await expect(row).to_contain_text("deleted")
    await expect(row).to_contain_text("gone for good")
    await press(signed_in, f"Restore {name}")
    await expect(told(signed_in)).to_contain_text(f"{name} is back")
    await sign_in(second, somebody.known)


# -- those who are lost


async def test_an_address_that_is_none_is_said_to_people_and_to_programs(
    signed_in: Page, posthouse: Posthouse
) -> None:
    noticed(signed_in).allow(404)
    await signed_in.goto("/no/such/page")
    await expect(signed_in.get_by_role("heading", level=1)).to_have_text("There is nothing here")
    await expect(signed_in.locator(".who")).to_contain_text("ann")
    await signed_in.get_by_role("link", name="To the start").click()
    await expect(signed_in.get_by_role("heading", level=1)).to_have_text("Datasets")
    answer = await signed_in.goto("/v1/nothing")
    assert answer is not None
    assert answer.headers["content-type"] == "application/problem+json"
    noticed(signed_in).allow(405, "/logout")
    answer = await signed_in.goto("/logout")
    assert answer is not None
    assert answer.headers["allow"] == "OPTIONS, POST"
    await expect(signed_in.get_by_role("heading", level=1)).to_have_text("There is nothing to see here")
