"""Every page is drawn in two sizes and two themes, fits every width, and keeps nobody out.

The pictures are in .local/test/screenshots, or where POSTHOUSE_SCREENSHOTS says: look at them.
"""

from __future__ import annotations

from typing import Any

import pytest
from playwright.async_api import Browser, Page

from tests.journeys.browser import Windows, check_access, check_width, noticed, sign_in
from tests.journeys.conftest import Posthouse
from tests.journeys.looks import LOOKS, NARROWEST, SIZES, THEMES, WIDEST, Look, take
from tests.journeys.weather import weather

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def furnished(posthouse: Posthouse, token: str) -> dict[str, str]:
    """What the pages show: other people, an open invitation, a deleted account."""
    other, gone = (join(posthouse, token, name) for name in ("benedikt", "carla"))
    join(posthouse, token, "erik", "administrator")
    posthouse.ask(f"/v1/users/{gone}", token=token, method="DELETE")
    posthouse.ask("/v1/invitations", {"note": "Dora from the lab"}, token)
    return {"user": other, **weather(posthouse, token)}


def join(posthouse: Posthouse, token: str, name: str, *roles: str) -> str:
    """Make an account by invitation; answers its id."""
    invitation = posthouse.ask("/v1/invitations", {"roles": roles}, token)["secret"]
    account = {"name": name, "email": f"{name}@example.org", "password": "a window seat by the sea"}
    made: dict[str, Any] = posthouse.ask("/v1/users", account | {"invitation": invitation})
    return str(made["id"])


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}px")
async def test_every_page_looks_like_one(
    browser: Browser,
    new_page: Windows,
    person: dict[str, str],
    furnished: dict[str, str],
    size: tuple[int, int],
) -> None:
    nobody, administrator = await new_page(size=size), await new_page(size=size)
    await sign_in(administrator, person)
    found = []
    for look in LOOKS:
        page = nobody if look.who == "nobody" else administrator
        try:
            await walk(browser, page, look, furnished)
        except AssertionError as error:
            found.append(f"{look.name}: {error}")
    assert not found, "\n".join(found)


async def walk(browser: Browser, page: Page, look: Look, furnished: dict[str, str]) -> None:
    """Both themes, and every width; axe has seen both themes and both sizes in the end."""
    size = page.viewport_size
    assert size is not None
    for theme in THEMES:
        await page.emulate_media(color_scheme=theme)
        await go(page, look, furnished)
        await take(browser, page, look.name, theme)
        if (theme == "dark") == (size["width"] == SIZES[-1][0]):
            await check_access(page)
    for width in (NARROWEST, WIDEST):
        await check_width(page, width)


async def go(page: Page, look: Look, furnished: dict[str, str]) -> None:
    path = look.path.format_map(furnished)
    noticed(page).allow(look.status, path)
    answer = await page.goto(path)
    assert answer is not None
    assert answer.status == look.status
    if look.before is not None:
        await look.before(page)
