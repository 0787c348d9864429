"""What the tests of pages stand on: a browser that draws text, and a watcher that misses nothing."""

from __future__ import annotations

import pytest
from playwright.async_api import Browser

from tests.journeys.browser import Windows, check_access, check_width, look_at, noticed
from tests.journeys.instance import until

# A page that has been there from the start, without a script.
PLACE = "/problems"


async def test_a_page_is_drawn_with_text(browser: Browser, new_page: Windows) -> None:
    page = await new_page(size=(390, 844))
    await page.goto(PLACE)
    picture = await look_at(browser, await page.screenshot())
    assert (picture.width, picture.height) == (390, 844)
    assert not picture.is_empty
    await page.set_content("<title>nothing</title>")
    assert (await look_at(browser, await page.screenshot())).is_empty


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("console.error('broken')", "console: broken"),
        ("console.warn('take care')", "console: take care"),
        ("setTimeout(() => { throw new Error('oh') })", "exception: oh"),
        ("fetch('/v1/datasets').catch(() => 0)", "401: GET"),
        ("fetch('http://127.0.0.2:9/').catch(() => 0)", "another host: GET http://127.0.0.2:9/"),
        ("new Image().src = 'http://elsewhere.invalid/a.png'", "another host: GET http://elsewhere.invalid"),
    ],
)
async def test_what_goes_wrong_is_noticed(new_page: Windows, what: str, said: str) -> None:
    page = await new_page(bypass_csp=True)
    await page.goto(PLACE)
    await page.evaluate(what)
    complaints = noticed(page).complaints
    await until(lambda: any(line.startswith(said) for line in complaints()), said, 10)
    with pytest.raises(AssertionError):
        await new_page.close()
    new_page.contexts.clear()


async def test_what_is_announced_is_no_complaint(new_page: Windows) -> None:
    page = await new_page(bypass_csp=True)
    await page.goto(PLACE)
    noticed(page).allow(401, "/v1/datasets")
    assert await page.evaluate("fetch('/v1/datasets').then((answer) => answer.status)") == 401
    noticed(page).allow_words("on purpose")
    await page.evaluate("console.warn('on purpose')")


async def test_axe_and_the_width_are_looked_at(new_page: Windows) -> None:
    page = await new_page(bypass_csp=True)
    await page.goto(PLACE)
    await page.set_content("<title>t</title><main><h1>h</h1><img src='data:,'><div style='width:500px'>w")
    with pytest.raises(AssertionError, match="image-alt"):
        await check_access(page)
    with pytest.raises(AssertionError, match="too wide"):
        await check_width(page, 360)
    await check_width(page, 2000)
