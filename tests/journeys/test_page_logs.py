"""The log in a browser: found by a form that needs no script, followed live, readable on any screen."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from typing import Any
from uuid import uuid4

import pytest
from playwright.async_api import Page, expect

from tests.journeys.browser import Windows, check_access, check_width, look_at, noticed, sign_in
from tests.journeys.conftest import Posthouse
from tests.journeys.instance import until_it_is

pytestmark = pytest.mark.timeout(180)


def ask_as(posthouse: Posthouse, token: str, path: str, body: Any = None, request_id: str = "") -> Any:
    """One request with a request id of its own."""
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    if request_id:
        headers["X-Request-Id"] = request_id
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(posthouse.url + path, data, headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


async def leave_a_line(posthouse: Posthouse, token: str) -> str:
    """A command whose line is in the log; answers the id of its request."""
    name = f"r-{uuid4().hex[:12]}"
    ask_as(posthouse, token, "/v1/datasets", {"name": f"of {name}"}, name)

    async def is_there() -> bool:
        return bool(ask_as(posthouse, token, f"/v1/logs?request_id={name}")["items"])

    await until_it_is(is_there, "the command is in the log", 20)
    return name


def rows(page: Page) -> Any:
    return page.locator("table.logs tbody tr")


async def test_a_line_is_found_by_its_request_and_opens(
    posthouse: Posthouse, token: str, signed_in: Page
) -> None:
    name = await leave_a_line(posthouse, token)
    page = signed_in
    await page.get_by_role("link", name="Logs").click()
    await page.get_by_label("Request", exact=True).fill(name)
    await page.get_by_role("button", name="Show").click()
    await expect(rows(page)).to_have_count(1)
    await expect(rows(page)).to_contain_text("command_ended")
    await expect(rows(page)).to_contain_text("topic=ingest.create_dataset")
    await page.locator("summary").first.click()
    await expect(page.locator("dl.fields")).to_contain_text("ms_since_born")
    title = await rows(page).locator("time").get_attribute("title")
    assert title
    await check_access(page)
    await page.get_by_role("link", name="Show all").click()
    await page.get_by_label("Text").fill(name)  # a request's id is no text of its lines
    await page.get_by_role("button", name="Show").click()
    await expect(page.get_by_role("heading", name="No line fits")).to_be_visible()
    await check_access(page)


async def test_a_mistake_in_the_address_is_told_and_the_form_stays(signed_in: Page) -> None:
    noticed(signed_in).allow(422, "/logs")
    await signed_in.goto("/logs?since=yesterday&q=needle")
    await expect(signed_in.get_by_role("alert")).to_contain_text("A time is written like")
    assert await signed_in.get_by_label("Text").input_value() == "needle"


async def test_it_works_without_a_script_page_by_page(
    posthouse: Posthouse, token: str, person: dict[str, str], new_page: Windows
) -> None:
    for _ in range(3):
        await leave_a_line(posthouse, token)
    page = await new_page(javascript=False)
    await sign_in(page, person, "/logs")
    await page.get_by_label("Service").select_option("ingest")
    await page.get_by_role("button", name="Show").click()
    assert await rows(page).count() >= 3
    assert await page.locator("#live").is_hidden()
    first = await rows(page).first.locator("time").get_attribute("datetime")
    last = await rows(page).last.locator("time").get_attribute("datetime")
    assert first is not None
    assert last is not None
    assert first > last
    await page.goto(page.url + "&after=AAAAAAAAAAAAAAAAAAA")
    await expect(page.get_by_role("heading", name="There are no older lines")).to_be_visible()


async def test_lines_appear_as_they_are_said_and_rest_while_nobody_looks(
    posthouse: Posthouse, token: str, signed_in: Page
) -> None:
    page = signed_in
    await page.goto("/logs?service=ingest")
    switch = page.get_by_role("button", name="Live")
    await switch.click()
    await expect(page.get_by_text("Following the log.")).to_be_visible()
    name = await leave_a_line(posthouse, token)
    line = rows(page).filter(has=page.locator(f"a[title='{name}']"))
    await expect(line).to_have_count(1)
    await expect(line).to_contain_text("topic=ingest.create_dataset")
    await check_access(page)
    await hide(page, True)
    await expect(page.get_by_text("Resting while nobody looks.")).to_be_visible()
    missed = await leave_a_line(posthouse, token)
    await hide(page, False)
    await expect(rows(page).filter(has=page.locator(f"a[title='{missed}']"))).to_have_count(1)
    await expect(line).to_have_count(1)
    await switch.click()
    await expect(switch).to_have_attribute("aria-pressed", "false")


async def hide(page: Page, is_hidden: bool) -> None:
    """As when another window covers this one."""
    await page.evaluate(
        """(hidden) => {
          Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
          document.dispatchEvent(new Event("visibilitychange"));
        }""",
        is_hidden,
    )


async def test_a_cut_line_is_told_and_followed_again(
    posthouse: Posthouse, token: str, signed_in: Page
) -> None:
    page = signed_in
    noticed(page).allow_offline()
    await page.goto("/logs")
    await page.get_by_role("button", name="Live").click()
    await expect(page.get_by_text("Following the log.")).to_be_visible()
    await page.route("**/v1/logs**", lambda route: route.abort())
    await hide(page, True)
    await hide(page, False)
    await expect(page.get_by_text("The connection is lost. Trying again…")).to_be_visible()
    name = await leave_a_line(posthouse, token)
    await page.unroute("**/v1/logs**")
    await expect(page.get_by_text("Following the log.")).to_be_visible(timeout=30_000)
    await expect(page.locator(f"a[title='{name}']")).to_have_count(1)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1440, 900), (390, 844)])
async def test_it_is_readable_at_every_size(
    person: dict[str, str], new_page: Windows, browser: Any, theme: Any, size: Any
) -> None:
    page = await new_page(theme=theme, size=size)
    await sign_in(page, person, "/logs")
    await page.locator("summary").first.click()
    await check_width(page, 360)
    await check_width(page, 2000)
    picture = await look_at(browser, await page.screenshot())
    assert not picture.is_empty


async def test_it_is_for_administrators(posthouse: Posthouse) -> None:
    def status() -> int:
        try:
            with urllib.request.urlopen(posthouse.url + "/v1/logs", timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    assert await asyncio.to_thread(status) == 401
