"""An administrator sees how the queues do, and what to do when one does not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aio_pika
import aiohttp
import pytest
from playwright.async_api import Page, expect

from shared.bus.topology import SERVICES
from tests.journeys.browser import Windows, check_access, check_width, sign_in
from tests.journeys.conftest import Posthouse

pytestmark = pytest.mark.timeout(300)
SOON = 15_000  # milliseconds: figures of the broker are up to five seconds late


def row(page: Page, queue: str) -> str:
    return f"tr[data-queue='{queue}']"


@asynccontextmanager
async def a_dead_letter(posthouse: Posthouse, queue: str) -> AsyncIterator[None]:
    """A message that failed for good, taken away again."""
    async with await aio_pika.connect(posthouse.addresses["POSTHOUSE_AMQP_URL"]) as connection:
        channel = await connection.channel()
        await channel.default_exchange.publish(aio_pika.Message(b"x"), queue)
        try:
            yield
        finally:
            await (await channel.get_queue(queue)).purge()


@pytest.fixture
async def nobody_elses(posthouse: Posthouse) -> None:
    """Queues of services that other journeys have made are gone: nobody takes from them any more."""
    api = posthouse.addresses["POSTHOUSE_MANAGEMENT_URL"] + "/api/queues/%2F"
    async with aiohttp.ClientSession(raise_for_status=True) as client:
        async with client.get(api) as answer:
            queues = {queue["name"] for queue in await answer.json()}
        for name in queues:
            service, _, what = name.partition(".")
            if service not in SERVICES and service in queues and what in ("", "queries", "events"):
                await client.delete(f"{api}/{name}")


async def test_the_board_follows_the_broker_and_says_what_to_do(
    posthouse: Posthouse, nobody_elses: None, signed_in: Page
) -> None:
    page = signed_in
    await page.get_by_role("link", name="Operations").click()
    await expect(page.get_by_role("heading", name="Operations")).to_be_visible()
    await expect(page.get_by_text("Every queue is as it should be.")).to_be_visible(timeout=SOON)
    await expect(page.locator(row(page, "auth"))).to_contain_text("needs 1")
    await check_access(page)
    async with a_dead_letter(posthouse, "dead.chat"):
        bad = page.locator(row(page, "dead.chat"))
        await expect(bad).to_contain_text("./posthouse logs chat", timeout=SOON)
        await expect(page.get_by_text("1 thing needs somebody")).to_be_visible()
        await expect(bad).to_have_class("queue bad")
        await check_access(page)
        await check_width(page, 360)
        await check_width(page, 2000)
    await expect(page.get_by_text("Every queue is as it should be.")).to_be_visible(timeout=SOON)
    link = page.locator(row(page, "worker.logs")).get_by_role("link")
    management = posthouse.addresses["POSTHOUSE_MANAGEMENT_URL"].rpartition("@")[2]
    await expect(link).to_have_attribute("href", f"http://{management}/#/queues/%2F/worker.logs")


async def test_focus_stays_where_it_is_while_the_board_is_made_anew(signed_in: Page) -> None:
    page = signed_in
    await page.goto("/operations")
    link = page.locator(row(page, "ingest")).get_by_role("link")
    await link.focus()
    before = await page.locator("#state").inner_text()
    await expect(page.locator("#state")).not_to_have_text(before, timeout=SOON)
    await expect(link).to_be_focused()


async def test_without_a_script_it_is_looked_at_again_by_a_link(
    person: dict[str, str], new_page: Windows
) -> None:
    page = await new_page(javascript=False)
    await sign_in(page, person, "/operations")
    assert await page.locator("tr.queue").count() >= 20
    await page.get_by_role("link", name="Look again").click()
    await page.wait_for_url("**/operations")
