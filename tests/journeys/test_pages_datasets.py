"""The pages of datasets as people use them: they type, click and read, and so does this."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Locator, Page, expect

from tests.journeys.browser import Windows, check_access, look_at, noticed, sign_in
from tests.journeys.conftest import Posthouse
from tests.journeys.instance import until

pytestmark = pytest.mark.timeout(120)

LIVE_MS = 25_000  # within five seconds on a machine with nothing else to do
NOT_FOUND = 404


@pytest.fixture
def send(posthouse: Posthouse) -> Any:
    """Sends readings as a device does: with the key of the dataset."""

    def now(dataset: str, key: str, body: Any) -> int:
        headers = {"Content-Type": "application/json", "X-API-Key": key}
        address = f"{posthouse.url}/v1/datasets/{dataset}/readings"
        request = urllib.request.Request(address, json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as refused:
            return refused.code

    return now


@pytest.fixture
def made(posthouse: Posthouse, token: str, request: pytest.FixtureRequest) -> dict[str, Any]:
    """A dataset of one variable, with its keys."""
    variables = [{"tag": "temp", "name": "Temperature", "unit": "°C"}]
    found: dict[str, Any] = posthouse.ask(
        "/v1/datasets", {"name": request.node.name, "variables": variables}, token
    )
    return found


def minutes_ago(minutes: float) -> str:
    return (datetime.now(UTC) - timedelta(minutes=minutes)).isoformat()


def readings(*values: float, tag: str = "temp") -> list[dict[str, Any]]:
    """One every ten minutes, the last one ten minutes ago."""
    count = len(values)
    return [
        {"at": minutes_ago(10 * (count - number)), "values": {tag: value}}
        for number, value in enumerate(values)
    ]


def chart(page: Page, name: str) -> Locator:
    return page.locator(".chart", has=page.get_by_role("heading", name=name))


async def drawn(page: Page, name: str) -> Locator:
    """The chart of this variable, once it has a line."""
    found = chart(page, name)
    await expect(found.locator("canvas")).to_be_visible()
    await expect(found.locator(".summary")).to_contain_text("value")
    return found


async def point_at(page: Page, place: Locator, part: float) -> None:
    """The mouse over this part of the drawing's width."""
    over = place.locator(".u-over")
    await over.scroll_into_view_if_needed()
    box = await over.bounding_box()
    assert box is not None
    await page.mouse.move(box["x"] + box["width"] * part, box["y"] + box["height"] / 2, steps=3)


async def drag(page: Page, place: Locator, start: float, end: float) -> None:
    await point_at(page, place, start)
    await page.mouse.down()
    await point_at(page, place, end)
    await page.mouse.up()


async def shown_times(page: Page) -> str:
    return (await page.locator("#state-text").inner_text()).partition(" · ")[0]


# -- made in the page, fed by a device, seen in a chart


async def test_a_dataset_is_made_fed_and_looked_at(
    new_page: Windows, browser: Browser, person: dict[str, str], send: Any
) -> None:
    page = await new_page(permissions=["clipboard-read", "clipboard-write"])
    await sign_in(page, person)
    await page.get_by_role("link", name="New dataset").click()
    await expect(page.get_by_label("Name", exact=True).first).to_be_focused()
    await page.keyboard.type("Conservatory")
    await page.get_by_label("Description").fill("Bed 3")
    first = page.locator("[data-row]").first
    await first.get_by_label("Tag").fill("soil")
    await first.get_by_label("Name").fill("Soil moisture")
    await first.get_by_label("Unit").fill("%")
    await page.get_by_role("button", name="Add a variable").click()
    await page.keyboard.type("air")
    await page.get_by_role("button", name="Make the dataset").click()
    await expect(page.get_by_role("status").first).to_contain_text("“Conservatory” is there")
    await expect(page.get_by_role("heading", name="No reading yet")).to_be_visible()

    await page.get_by_role("button", name="Reveal the keys").click()
    await page.get_by_role("button", name="Copy the write key").click()
    await expect(page.get_by_text("Copied", exact=True)).to_be_visible()
    key = await page.evaluate("navigator.clipboard.readText()")
    assert re.fullmatch(r"[0-9A-Z]{16}", key)
    dataset = page.url.rpartition("/")[2]
    assert send(dataset, key, readings(41.5, 42.25, 40, tag="soil")) == 201

    place = await drawn(page, "Soil moisture")  # by itself: nobody loads the page again
    await page.goto(f"/datasets/{dataset}?range=1h")
    place = await drawn(page, "Soil moisture")
    await expect(place.locator(".readout")).to_contain_text("40 %")
    await point_at(page, place, 0.5)
    await expect(place.locator(".readout")).to_contain_text("41.5 %")
    await point_at(page, place, 0.667)
    await expect(place.locator(".readout")).to_contain_text("42.25 %")
    at = (datetime.now(UTC) - timedelta(minutes=20)).astimezone()
    await expect(place.locator(".readout .time")).to_contain_text(f"{at:%Y}")
    await expect(place.locator(".readout .time")).to_contain_text("CET")
    await expect(place.locator(".summary")).to_contain_text("3 values · min 40 % · max 42.25 % · last 40 %")
    drawings = await place.get_attribute("data-drawn")
    await expect(place).not_to_have_attribute("data-drawn", str(drawings), timeout=LIVE_MS)
    await expect(place.locator(".readout")).to_contain_text("42.25 %")  # also after it was drawn again
    picture = await look_at(browser, await place.locator("canvas").screenshot())
    assert not picture.is_empty
    await expect(chart(page, "air").locator(".summary")).to_have_text("No values in this range.")
    await page.goto("/")
    row = page.get_by_role("row", name="Conservatory")
    await expect(row).to_contain_text("Bed 3")
    await expect(row).to_contain_text("10 minutes ago")


async def test_what_comes_in_appears_while_one_looks(signed_in: Page, made: Any, send: Any) -> None:
    page = signed_in
    send(made["id"], made["write_key"], readings(1, 2, 3))
    await page.goto(f"/datasets/{made['id']}?range=1h")
    place = await drawn(page, "Temperature")
    await expect(place.locator(".summary")).to_contain_text("3 values")
    await expect(page.locator("#live")).to_have_text("Live")
    send(made["id"], made["write_key"], {"values": {"temp": 77.5}})
    await expect(place.locator(".readout")).to_contain_text("77.5 °C", timeout=LIVE_MS)
    await expect(place.locator(".summary")).to_contain_text("4 values · min 1 °C · max 77.5 °C")
    await expect(page.locator("#entries")).to_have_text("4")
    await expect(page.locator("table.readings tbody tr").first).to_contain_text("77.5")
    # One that belongs in between counts as well.
    send(made["id"], made["write_key"], {"at": minutes_ago(15), "values": {"temp": -8}})
    await expect(place.locator(".summary")).to_contain_text("5 values · min -8 °C", timeout=LIVE_MS)


async def test_nothing_is_asked_while_nobody_looks(signed_in: Page, made: Any, send: Any) -> None:
    hidden, looked_at = signed_in, await signed_in.context.new_page()
    send(made["id"], made["write_key"], readings(1, 2, 3))
    for page in (hidden, looked_at):
        await page.goto(f"/datasets/{made['id']}")
        await drawn(page, "Temperature")
    is_hidden = "Object.defineProperty(document, 'hidden', { value: true, configurable: true })"
    await hidden.evaluate(is_hidden)
    await expect(hidden.locator("#live")).to_have_text("Paused", timeout=LIVE_MS)
    asked: list[str] = []
    hidden.on("request", lambda request: asked.append(request.url))
    for value in (4, 5):  # so long that the other one looked twice
        send(made["id"], made["write_key"], {"values": {"temp": value}})
        told = chart(looked_at, "Temperature").locator(".summary")
        await expect(told).to_contain_text(f"{value} values", timeout=LIVE_MS)
    assert not asked
    await hidden.evaluate("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")
    await expect(chart(hidden, "Temperature").locator(".summary")).to_contain_text("5 values")
    await expect(hidden.locator("#live")).to_have_text("Live")


async def test_a_line_that_is_cut_is_said_and_mended(signed_in: Page, made: Any, send: Any) -> None:
    page = signed_in
    send(made["id"], made["write_key"], readings(1, 2, 3))
    await page.goto(f"/datasets/{made['id']}")
    place = await drawn(page, "Temperature")
    noticed(page).allow_offline()
    await page.context.set_offline(True)
    await expect(page.get_by_text("The server cannot be reached")).to_be_visible(timeout=LIVE_MS)
    await expect(page.locator("#live")).to_have_text("Trying again …", timeout=LIVE_MS)
    await expect(place.locator(".summary")).to_contain_text("3 values")
    send(made["id"], made["write_key"], {"values": {"temp": 4}})
    await page.context.set_offline(False)
    await expect(page.get_by_text("The server cannot be reached")).to_be_hidden(timeout=20_000)
    await expect(place.locator(".summary")).to_contain_text("4 values", timeout=20_000)


async def test_what_cannot_be_loaded_can_be_tried_again(signed_in: Page, made: Any, send: Any) -> None:
    page = signed_in
    send(made["id"], made["write_key"], readings(1, 2, 3))
    noticed(page).allow(503, f"/v1/datasets/{made['id']}/readings")
    problem = json.dumps({"code": "unavailable", "detail": "Something is away."})
    away = {"status": 503, "content_type": "application/problem+json", "body": problem}
    await page.route("**/readings?*", lambda route: route.fulfill(**away))
    await page.goto(f"/datasets/{made['id']}")
    await expect(page.get_by_text("The readings could not be loaded: Something is away.")).to_be_visible()
    await page.unroute("**/readings?*")
    await page.get_by_role("button", name="Try again").click()
    await expect(chart(page, "Temperature").locator(".summary")).to_contain_text("3 values")


async def test_gaps_stay_gaps_and_texts_are_a_list(signed_in: Page, made: Any, send: Any) -> None:
    page = signed_in
    minutes = [*range(55, 40, -1), *range(15, 0, -1)]
    rows: list[dict[str, Any]] = [{"at": minutes_ago(ago), "values": {"temp": ago}} for ago in minutes]
    rows += [{"at": minutes_ago(30), "values": {"temp": "no sensor"}}]
    send(made["id"], made["write_key"], rows)
    await page.goto(f"/datasets/{made['id']}?range=1h")
    place = await drawn(page, "Temperature")
    await expect(place).to_have_attribute("data-points", str(len(minutes) + 1))  # one of them is the gap
    await expect(place.locator(".texts")).to_contain_text("no sensor")
    await expect(place.locator(".summary")).to_contain_text("30 values")


# -- ranges and zoom


async def test_zoom_changes_the_range_of_every_chart(
    signed_in: Page, posthouse: Posthouse, token: str, send: Any
) -> None:
    page = signed_in
    variables = [{"tag": "a", "name": "First"}, {"tag": "b", "name": "Second"}]
    made = posthouse.ask("/v1/datasets", {"name": "Zoom", "variables": variables}, token)
    rows = [{"at": minutes_ago(60 - n), "values": {"a": n, "b": -n}} for n in range(1, 60)]
    send(made["id"], made["write_key"], rows)
    await page.goto(f"/datasets/{made['id']}?range=1h")
    first, second = await drawn(page, "First"), await drawn(page, "Second")
    await expect(second.locator(".summary")).to_contain_text("59 values")
    whole = await shown_times(page)

    await drag(page, first, 0.25, 0.5)
    await expect(second.locator(".summary")).to_contain_text(re.compile(r"^1[3-7] values"))
    assert await shown_times(page) != whole
    await point_at(page, first, 0.5)  # both show what is under the cursor
    value = int(await first.locator(".readout .value").inner_text())
    assert 14 <= value <= 30
    await expect(second.locator(".readout .value")).to_have_text(str(-value))

    await first.locator(".u-over").dblclick()
    await expect(second.locator(".summary")).to_contain_text("59 values")
    await page.get_by_role("button", name="Zoom in").click()
    await expect(second.locator(".summary")).to_contain_text(re.compile(r"^(29|30|31) values"))
    await page.get_by_role("button", name="Whole range").click()
    await expect(second.locator(".summary")).to_contain_text("59 values")


async def test_charts_are_read_with_the_keyboard(signed_in: Page, made: Any, send: Any) -> None:
    page = signed_in
    send(made["id"], made["write_key"], readings(5, 6.5, 7, 8))
    await page.goto(f"/datasets/{made['id']}?range=1h")
    place = await drawn(page, "Temperature")
    await place.locator(".plot").focus()
    await page.keyboard.press("Home")
    await expect(place.locator(".readout")).to_contain_text("5 °C")
    await page.keyboard.press("ArrowRight")
    await expect(place.locator(".readout")).to_contain_text("6.5 °C")
    await expect(page.locator("#announcer")).to_contain_text("6.5 °C")
    await page.keyboard.press("+")
    await page.keyboard.press("+")
    await expect(place.locator(".summary")).to_contain_text("1 value ")
    await page.keyboard.press("Shift+ArrowRight")
    await expect(place.locator(".summary")).to_contain_text("7 °C")
    await page.keyboard.press("0")
    await expect(place.locator(".summary")).to_contain_text("4 values")


async def test_a_range_is_chosen_by_its_times(signed_in: Page, made: Any, send: Any) -> None:
    page = signed_in
    rows = [{"at": f"2026-01-0{day}T12:00:00Z", "values": {"temp": day}} for day in range(1, 10)]
    send(made["id"], made["write_key"], rows)
    await page.goto(f"/datasets/{made['id']}")
    place = await drawn(page, "Temperature")
    await expect(page.get_by_role("link", name="All", exact=True)).to_have_attribute("aria-current", "true")
    await expect(place.locator(".summary")).to_contain_text("9 values")
    await page.get_by_text("From \u2013 to").click()
    await page.get_by_label("From").fill("2026-01-03T13:00:00")  # in Berlin: noon in Greenwich
    await page.get_by_label("To", exact=True).fill("2026-01-06T00:00:00")
    await page.get_by_role("button", name="Show").click()
    await expect(place.locator(".summary")).to_contain_text("3 values · min 3 °C · max 5 °C")
    await expect(page.get_by_label("From")).to_have_value(re.compile("^2026-01-03T13:00"))
    await expect(page.locator("#live")).to_contain_text("Not live")
    await expect(page.locator("table.readings tbody tr")).to_have_count(3)


# -- described anew


async def test_variables_are_retired_brought_back_and_added(
    signed_in: Page, posthouse: Posthouse, token: str, made: Any
) -> None:
    page = signed_in

    def tags() -> dict[str, bool]:
        found = posthouse.ask(f"/v1/datasets/{made['id']}", token=token)["variables"]
        return {one["tag"]: one["retired"] for one in found}

    await page.goto(f"/datasets/{made['id']}/edit")
    await page.get_by_label("In use").uncheck()
    await page.get_by_role("group", name="New variable").get_by_label("Tag").fill("hum id")
    noticed(page).allow(422)
    await page.get_by_role("button", name="Save", exact=True).click()
    await expect(page.get_by_text("Only letters, digits and _ . - are possible")).to_be_visible()
    wrong = page.locator("[aria-invalid=true]")
    await expect(wrong).to_have_value("hum id")
    await wrong.fill("humid")
    await wrong.press("Enter")
    await expect(page.get_by_text("is changed")).to_be_visible()
    assert tags() == {"temp": True, "humid": False}

    await page.get_by_role("link", name="Edit", exact=True).click()
    await expect(page.get_by_role("heading", name="Retired", exact=True)).to_be_visible()
    await page.get_by_label("Bring back").check()
    await page.get_by_role("button", name="Save", exact=True).click()
    await expect(chart(page, "Temperature")).to_be_hidden()  # there is no reading yet
    assert tags() == {"temp": False, "humid": False}


async def test_two_editors_do_not_overwrite_each_other(
    signed_in: Page, posthouse: Posthouse, token: str, made: Any
) -> None:
    page, other = signed_in, await signed_in.context.new_page()
    for one in (page, other):
        await one.goto(f"/datasets/{made['id']}/edit")
    await other.get_by_label("Description").fill("theirs")
    await other.get_by_role("button", name="Save", exact=True).click()
    await other.wait_for_url(f"**/datasets/{made['id']}")
    noticed(page).allow(412)
    await page.get_by_label("Description").fill("mine")
    await page.get_by_role("button", name="Save", exact=True).click()
    await expect(page.get_by_role("alert")).to_contain_text("Somebody changed this dataset")
    await expect(page.get_by_role("alert")).to_contain_text("Description: mine")
    await expect(page.get_by_label("Description")).to_have_value("theirs")
    await page.get_by_label("Description").fill("both")
    await page.get_by_role("button", name="Save", exact=True).click()
    await page.wait_for_url(f"**/datasets/{made['id']}")
    assert posthouse.ask(f"/v1/datasets/{made['id']}", token=token)["description"] == "both"


# -- keys, strangers, the end


async def test_a_new_key_ends_the_old_one(signed_in: Page, made: Any, send: Any) -> None:
    page = signed_in
    assert send(made["id"], made["write_key"], readings(1)) == 201
    await page.goto(f"/datasets/{made['id']}/edit")
    await page.get_by_role("link", name="New write key").click()
    await expect(page.get_by_text("stops working at once")).to_be_visible()
    await page.get_by_role("button", name="Make a new write key").click()
    await expect(page.get_by_role("heading", name="The write key is new")).to_be_visible()
    key = await page.locator("#write-key").inner_text()
    assert key != made["write_key"]
    assert await page.locator("#read-key").inner_text() == made["read_key"]
    old = made["write_key"]  # gateways hear of its end by an event
    await until(lambda: send(made["id"], old, readings(2)) == 401, "the old key is refused", 10)
    assert send(made["id"], key, readings(3)) == 201


async def test_strangers_see_what_is_public_and_nothing_else(
    signed_in: Page, new_page: Windows, made: Any, send: Any
) -> None:
    send(made["id"], made["write_key"], readings(11, 12, 13))
    stranger = await new_page()
    noticed(stranger).allow(NOT_FOUND)
    for path in ("", "/export"):
        answer = await stranger.goto(f"/datasets/{made['id']}{path}")
        assert answer is not None
        assert answer.status == NOT_FOUND
    await expect(stranger.get_by_role("heading", name="There is no such dataset")).to_be_visible()

    await signed_in.goto(f"/datasets/{made['id']}/edit")
    await signed_in.get_by_label("Public").check()
    await signed_in.get_by_role("button", name="Save", exact=True).click()
    await signed_in.wait_for_url(f"**/datasets/{made['id']}")

    await stranger.goto(f"/datasets/{made['id']}?range=1h")
    place = await drawn(stranger, "Temperature")
    await expect(place.locator(".summary")).to_contain_text("3 values")
    send(made["id"], made["write_key"], {"values": {"temp": 14}})
    await expect(place.locator(".summary")).to_contain_text("4 values", timeout=LIVE_MS)
    for words in ("Edit", "Import", "Reveal", "WRITE_KEY", "Refused"):
        await expect(stranger.get_by_text(words)).to_have_count(0)
    await check_access(stranger)
    answer = await stranger.goto(f"/datasets/{made['id']}/edit")
    assert "/login?next=" in stranger.url


async def test_what_was_deleted_comes_back(signed_in: Page, made: Any, send: Any) -> None:
    page = signed_in
    send(made["id"], made["write_key"], readings(1, 2))
    await page.goto(f"/datasets/{made['id']}/edit")
    await page.get_by_role("link", name="Delete this dataset").click()
    await expect(page.get_by_text("2 readings of 1 variable go with it.")).to_be_visible()
    await page.get_by_role("button", name="Delete it").click()
    await expect(page.get_by_role("status").first).to_contain_text("with 2 readings is deleted")
    assert send(made["id"], made["write_key"], readings(3)) == 401
    row = page.get_by_role("row", name=made["name"])
    await expect(row).to_contain_text("in 24 hours")
    await row.get_by_role("button", name="Undo").click()
    await expect(page.get_by_role("status").first).to_contain_text("is back with 2 readings")
    assert send(made["id"], made["write_key"], readings(3)) == 201


async def test_a_dataset_is_found_among_many(page: Page, posthouse: Posthouse, token: str) -> None:
    invitation = posthouse.ask("/v1/invitations", {}, token)["secret"]
    account = {"name": "fenna", "email": "fenna@example.org", "password": "rain on a tin roof"}
    posthouse.ask("/v1/users", account | {"invitation": invitation})
    own = posthouse.ask("/v1/sessions", {"name": "fenna", "password": account["password"]})["access_token"]
    await sign_in(page, {"POSTHOUSE_NAME": "fenna", "POSTHOUSE_PASSWORD": account["password"]})
    await expect(page.get_by_role("heading", name="No dataset yet")).to_be_visible()
    await expect(page.get_by_text(f"curl {posthouse.url}/v1/datasets/ID/readings")).to_be_visible()
    for number in range(55):
        posthouse.ask("/v1/datasets", {"name": f"Tank {number}", "description": f"Cellar {number}"}, own)

    await page.goto("/")
    await expect(page.get_by_role("link", name="Tank 2", exact=True)).to_have_count(0)
    await page.get_by_role("link", name="Older datasets").click()
    await expect(page.get_by_role("link", name="Tank 2", exact=True)).to_be_visible()
    await page.goto("/")
    await page.get_by_label("Find a dataset").fill("CELLAR 2")
    await page.get_by_label("Find a dataset").press("Enter")
    await expect(page.locator("table.datasets tbody tr")).to_have_count(11)  # 2, and 20 to 29
    await page.get_by_role("link", name="Tank 2", exact=True).click()
    await expect(page.get_by_role("heading", name="Tank 2")).to_be_visible()


# -- files


async def test_a_file_comes_in_and_goes_out_byte_for_byte(
    signed_in: Page, posthouse: Posthouse, token: str, seattle_file: Path, tmp_path: Path
) -> None:
    page = signed_in
    made = posthouse.ask("/v1/datasets", {"name": "Seattle in the browser"}, token)
    await page.goto(f"/datasets/{made['id']}/import")
    await page.get_by_label("CSV, NDJSON or JSON").set_input_files(seattle_file)
    await expect(page.get_by_text("1 column has no variable yet: temp.")).to_be_visible()
    await expect(page.get_by_label("How times are written").first).to_have_value("%Y/%m/%d %H:%M")
    await page.get_by_label("Time zone").first.fill("-08:00")
    await page.get_by_role("button", name="Add them as variables").click()
    await expect(page.get_by_text("no variable yet")).to_be_hidden()
    await page.get_by_role("button", name="Import", exact=True).click()
    await expect(page.locator("#progress-text")).to_have_text("8,759 readings stored.", timeout=60_000)
    await expect(page.locator("#refused")).to_have_text("0")
    await page.get_by_role("link", name="See the readings").click()
    place = await drawn(page, "temp")
    await expect(place.locator(".summary")).to_contain_text("8,759 values", timeout=30_000)
    await expect(place).to_have_attribute("data-thinned", "true")

    await page.get_by_role("link", name="Export").click()
    await page.get_by_label("Time zone").fill("-08:00")
    await page.get_by_label("Name of the time column").fill("date")
    await page.get_by_label("How times are written").fill("%Y/%m/%d %H:%M")
    async with page.expect_download() as download:
        await page.get_by_role("button", name="Download").click()
    copy = tmp_path / "copy.csv"
    await (await download.value).save_as(copy)
    assert copy.read_bytes() == seattle_file.read_bytes()

    await page.goto(f"/datasets/{made['id']}/import")  # the same once more: nothing is there twice
    await page.get_by_label("CSV, NDJSON or JSON").set_input_files(seattle_file)
    await page.get_by_label("Time zone").first.fill("-08:00")
    await page.get_by_role("button", name="Import", exact=True).click()
    await expect(page.locator("#progress-text")).to_contain_text("nothing was stored again")
    assert posthouse.ask(f"/v1/datasets/{made['id']}", token=token)["entries"] == 8_759


async def test_lines_that_cannot_be_stored_are_listed(signed_in: Page, made: Any, tmp_path: Path) -> None:
    page = signed_in
    file = tmp_path / "some.csv"
    file.write_text(
        'when;Temperature here;note;temp\n2026-01-01 00:00;x;"a;b";1,5\n'
        "never;x;;2\n2026-01-01 00:02;x;;3\n2026-01-01 00:03;x\n"
    )
    await page.goto(f"/datasets/{made['id']}/import")
    await page.get_by_label("CSV, NDJSON or JSON").set_input_files(file)
    await page.get_by_role("combobox", name="Temperature here").select_option("skip")
    await page.get_by_role("combobox", name="note").select_option("part:status")
    await page.get_by_label("Time zone").first.fill("UTC")
    await page.get_by_role("button", name="Import", exact=True).click()
    await expect(page.locator("#progress-text")).to_contain_text("2 readings stored, 2 lines refused")
    rows = page.locator("#lines tr")
    await expect(rows.nth(0)).to_contain_text("3")
    await expect(rows.nth(0)).to_contain_text("never")
    await expect(rows.nth(1)).to_contain_text("5")
    async with page.expect_download() as download:
        await page.get_by_role("link", name="Download the list").click()
    report = tmp_path / "report.csv"
    await (await download.value).save_as(report)
    lines = report.read_text().splitlines()
    assert lines[0] == "line,code,message"
    assert [line.split(",")[:2] for line in lines[1:]] == [["3", "bad_time"], ["5", "wrong_columns"]]
    await page.get_by_role("link", name="See the readings").click()
    await expect(page.locator("table.readings tbody tr").last).to_contain_text("1.5")
    await expect(page.locator("table.readings tbody tr").last).to_contain_text("a;b")


async def test_a_list_of_json_comes_in_as_it_is_written(
    signed_in: Page, posthouse: Posthouse, token: str, made: Any, tmp_path: Path
) -> None:
    page = signed_in
    file = tmp_path / "some.json"
    file.write_text(
        """[
          {"at": "2026-01-01T00:00:00Z", "values": {"temp": "22.50", "pressure": 1013}},
          {"at": "2026-01-01T01:00:00Z", "values": {"temp": null}, "status": "}]"},
          {"values": {"air pressure": 1013}}
        ]"""
    )
    await page.goto(f"/datasets/{made['id']}/import")
    await page.get_by_label("CSV, NDJSON or JSON").set_input_files(file)
    told = page.locator("#unknown-text")
    await expect(told).to_contain_text("2 names have no variable yet: pressure, air pressure.")
    await expect(told).to_contain_text("“air pressure” cannot be a tag")
    await page.get_by_role("button", name="Add them as variables").click()
    await expect(told).to_contain_text("1 name has no variable yet: air pressure.")
    await page.get_by_role("button", name="Import", exact=True).click()
    await expect(page.locator("#progress-text")).to_contain_text("2 readings stored, 1 line refused")
    await expect(page.locator("#lines tr").first).to_contain_text("3")
    items = posthouse.ask(f"/v1/datasets/{made['id']}/readings?order=asc", token=token)["items"]
    assert [one["values"] for one in items] == [{"temp": "22.50", "pressure": 1013}, {"temp": None}]
    assert items[1]["status"] == "}]"


async def test_an_import_that_is_stopped_goes_on(
    signed_in: Page, posthouse: Posthouse, token: str, made: Any, tmp_path: Path
) -> None:
    page = signed_in
    file = tmp_path / "long.ndjson"
    start = datetime(2026, 1, 1, tzinfo=UTC)
    file.write_text(
        "\n".join(
            json.dumps({"at": (start + timedelta(minutes=n)).isoformat(), "values": {"temp": n}})
            for n in range(20_000)
        )
    )
    await page.goto(f"/datasets/{made['id']}/import")
    await page.get_by_label("CSV, NDJSON or JSON").set_input_files(file)
    noticed(page).allow_offline()
    await page.get_by_role("button", name="Import", exact=True).click()
    await expect(page.locator("#stored")).not_to_have_text("0")
    await page.context.set_offline(True)
    await expect(page.locator("#progress-text")).to_contain_text("Trying again in")
    await page.get_by_role("button", name="Stop").click()
    await expect(page.locator("#progress-text")).to_contain_text("Stopped after line")
    await page.context.set_offline(False)
    await page.get_by_role("button", name="Go on").click()
    await expect(page.locator("#progress-text")).to_contain_text("readings stored.", timeout=60_000)
    assert posthouse.ask(f"/v1/datasets/{made['id']}", token=token)["entries"] == 20_000


async def test_files_that_are_none_are_told(signed_in: Page, made: Any, tmp_path: Path) -> None:
    page = signed_in
    await page.goto(f"/datasets/{made['id']}/import")
    for content, told in (
        (b"", "The file is empty"),
        (b"at,temp\n2026-01-01T00:00:00Z,\xff\n", "not UTF-8"),
        (b"at,temp,temp\n", "every column a name of its own"),
    ):
        file = tmp_path / f"{told}.csv"
        file.write_bytes(content)
        await page.get_by_label("CSV, NDJSON or JSON").set_input_files(file)
        await expect(page.locator("#file-wrong")).to_contain_text(told)


# -- without script, for everybody, at every size


async def test_everything_works_without_script(
    new_page: Windows, person: dict[str, str], posthouse: Posthouse, token: str, send: Any
) -> None:
    page = await new_page(javascript=False)
    await sign_in(page, person)
    await page.get_by_role("link", name="New dataset").click()
    await page.get_by_label("Name", exact=True).first.fill("By hand")
    await page.get_by_role("button", name="Add variables").click()
    await expect(page.get_by_label("Name", exact=True).first).to_have_value("By hand")
    rows = page.locator("[data-row]")
    await expect(rows).to_have_count(8)
    await rows.nth(6).get_by_label("Tag").fill("level")
    await page.get_by_role("button", name="Make the dataset").click()
    dataset = page.url.rpartition("/")[2]
    await page.get_by_role("button", name="Reveal the keys").click()
    key = await page.locator("#write-key").inner_text()
    assert send(dataset, key, readings(*range(30), tag="level")) == 201
    await page.goto(f"/datasets/{dataset}?range=all")
    lines = page.locator("table.readings tbody tr")
    await expect(lines).to_have_count(25)
    await expect(lines.first).to_contain_text("29")
    await page.get_by_role("link", name="Older readings").click()
    await expect(page.locator("table.readings tbody tr")).to_have_count(5)
    await page.get_by_role("link", name="1 hour").click()
    await expect(page.locator("table.readings tbody tr")).to_have_count(5)

    await page.get_by_role("link", name="Import").click()
    await page.get_by_text("Write or paste readings").click()
    await page.get_by_label("Readings", exact=True).fill("at,level\n2026-01-01T00:00:00Z,5\nnever,6")
    await page.get_by_role("button", name="Store").click()
    await expect(page.get_by_role("alert")).to_contain_text("1 reading stored, 1 line refused")
    assert posthouse.ask(f"/v1/datasets/{dataset}", token=token)["entries"] == 31
    await page.goto(f"/datasets/{dataset}/edit")
    await page.get_by_label("In use").uncheck()
    await page.get_by_role("button", name="Save", exact=True).click()
    [level] = posthouse.ask(f"/v1/datasets/{dataset}", token=token)["variables"]
    assert level["retired"]
