"""Every page there is to look at: one row each, walked in two sizes and two themes by test_pages_look.py."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from playwright.async_api import Browser, Page

from tests.journeys.browser import Theme, look_at, noticed, pictures_place
from tests.journeys.weather import charts_drawn, file_chosen, file_imported, keys_revealed, row_added

SIZES = ((390, 844), (1440, 900))
THEMES: tuple[Theme, ...] = ("light", "dark")
NARROWEST, WIDEST = 360, 2_000


@dataclass(frozen=True)
class Look:
    """A page: its picture's name, its path (`{dataset}` and the like are named by the fixture `furnished`),
    who looks, the status it has, and what is waited for or opened before the picture is taken.
    """

    name: str
    path: str
    who: Literal["nobody", "administrator"] = "administrator"
    status: int = 200
    before: Callable[[Page], Awaitable[object]] | None = None


async def take(browser: Browser, page: Page, name: str, theme: Theme) -> None:
    """A picture of the whole page; an empty one fails."""
    size = page.viewport_size
    assert size is not None
    png = await page.screenshot(full_page=True)
    (pictures_place() / f"{name}-{size['width']}x{size['height']}-{theme}.png").write_bytes(png)
    picture = await look_at(browser, png)
    assert not picture.is_empty, f"{name} is {picture}"


async def mistaken(page: Page) -> None:
    """A form that comes back with what is wrong."""
    noticed(page).allow(422, "/settings")
    for name in ("current_password", "password", "password_again"):
        await page.locator(f"#{name}").fill("passwordpassword")
    await page.get_by_role("button", name="Change the password").click()
    await page.locator(".wrong").first.wait_for()


async def refused(page: Page) -> None:
    """Somebody who is not let in."""
    noticed(page).allow(422, "/login")
    for name in ("name", "password"):
        await page.locator(f"#{name}").fill("whoever that is")
    await page.get_by_role("button", name="Sign in", exact=True).click()
    await page.get_by_role("alert").wait_for()


async def invited(page: Page) -> None:
    """The link that is shown once."""
    await page.get_by_role("button", name="Make the link").click()
    await page.get_by_label("Link of the invitation").wait_for()


async def asked(page: Page) -> None:
    """The question before something is taken away."""
    await page.get_by_role("button", name="Remove erik as administrator").click()
    await page.get_by_role("dialog").wait_for()


LOOKS = (
    Look("login", "/login", "nobody"),
    Look("sign-up", "/sign-up?invitation=phi_example", "nobody"),
    Look("sign-up-without", "/sign-up", "nobody"),
    Look("login-refused", "/login", "nobody", before=refused),
    Look("restore", "/restore", "nobody"),
    Look("settings-mistaken", "/settings", before=mistaken),
    Look("users-invited", "/users", before=invited),
    Look("users-asked", "/users", before=asked),
    Look("settings", "/settings"),
    Look("settings-delete", "/settings/delete"),
    Look("sessions", "/sessions"),
    Look("users", "/users"),
    Look("user-delete", "/users/{user}/delete"),
    Look("operations", "/operations"),
    Look("logs", "/logs"),
    Look("not-found", "/nowhere", status=404),
    Look("datasets", "/", before=keys_revealed),
    Look("datasets-none-fits", "/?q=attic"),
    Look("dataset", "/datasets/{weather}", before=charts_drawn),
    Look("dataset-public", "/datasets/{weather}?range=all", "nobody", before=charts_drawn),
    Look("dataset-range-empty", "/datasets/{weather}?start=2020-01-01&end=2020-01-02"),
    Look("dataset-empty", "/datasets/{greenhouse}"),
    Look("dataset-missing", "/datasets/00000000-0000-0000-0000-000000000000", "nobody", status=404),
    Look("dataset-new", "/datasets/new", before=row_added),
    Look("dataset-edit", "/datasets/{weather}/edit", before=keys_revealed),
    Look("dataset-import", "/datasets/{weather}/import"),
    Look("dataset-import-columns", "/datasets/{bed}/import", before=file_chosen),
    Look("dataset-imported", "/datasets/{bed}/import", before=file_imported),
    Look("dataset-export", "/datasets/{weather}/export"),
    Look("dataset-delete", "/datasets/{weather}/delete"),
    Look("dataset-new-key", "/datasets/{weather}/keys/write"),
)
