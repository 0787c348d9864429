"""Datasets to look at: two days of weather with a gap, two that are empty, one that was deleted."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from playwright.async_api import Page, expect

from tests.journeys.conftest import Posthouse

MINUTES = 2 * 24 * 60
STATION = {
    "name": "Weather on the roof",
    "description": "Mast of the institute, 12 m above ground.\nLooked after by Ann.",
    "public": True,
    "variables": [
        {"tag": "temperature", "name": "Temperature", "unit": "°C"},
        {"tag": "humidity", "name": "Relative humidity", "unit": "%"},
        {"tag": "wind", "name": "Wind", "unit": "m/s"},
        {"tag": "state", "name": "State"},
        {"tag": "rain", "name": "Rain", "unit": "mm"},
    ],
}
FILE = b"""date,soil,Air temperature,remark
2026-01-31 12:00,41.5,18.2,watered
2026-01-31 13:00,40.9,18.9,
never,40.2,19.3,
"""


def weather(posthouse: Posthouse, token: str) -> dict[str, str]:
    """The ids of the datasets, by what pages call them."""
    station = posthouse.ask("/v1/datasets", STATION, token)
    rows = list(_readings())
    for begin in range(0, len(rows), 1_000):
        posthouse.ask(f"/v1/datasets/{station['id']}/readings", rows[begin : begin + 1_000], token)
    kept = [one for one in STATION["variables"] if one["tag"] != "rain"]  # type: ignore[index]
    posthouse.ask(f"/v1/datasets/{station['id']}", {"variables": kept}, token, method="PATCH")
    soil = [{"tag": "soil", "name": "Soil moisture", "unit": "%"}]
    house, bed = (
        posthouse.ask("/v1/datasets", {"name": name, "variables": soil}, token)
        for name in ("Greenhouse", "Bed 3")
    )
    old = posthouse.ask("/v1/datasets", {"name": "Old station"}, token)
    posthouse.ask(f"/v1/datasets/{old['id']}", token=token, method="DELETE")
    return {"weather": station["id"], "greenhouse": house["id"], "bed": bed["id"]}


def _readings() -> Any:
    chance, now = Random(20_261_120), datetime.now(UTC).replace(microsecond=0)
    for minute in range(MINUTES):
        if 2_100 < minute < 2_200:
            continue
        values: dict[str, float | str] = {
            "temperature": round(12 + 6 * math.sin(minute / 230) + chance.gauss(0, 0.25), 2),
            "humidity": round(60 - 15 * math.sin(minute / 230 + 0.3) + chance.gauss(0, 1), 1),
        }
        if minute % 5 == 0:
            values["wind"] = round(abs(chance.gauss(4, 2)), 1)
        if minute % 400 == 0:
            values["state"] = chance.choice(["ok", "battery low", "sensor cleaned"])
        yield {"at": (now - timedelta(minutes=MINUTES - minute)).isoformat(), "values": values}


async def charts_drawn(page: Page) -> None:
    """All that was asked for is there, and the mouse points at something."""
    await expect(page.locator("#state-text")).to_contain_text("readings")
    await expect(page.locator("#state-text")).not_to_contain_text("Loading")
    over = page.locator(".u-over").first
    box = await over.bounding_box()
    assert box is not None
    await page.mouse.move(box["x"] + box["width"] * 0.7, box["y"] + box["height"] * 0.5)


async def keys_revealed(page: Page) -> None:
    """The keys of the first dataset are shown."""
    await page.get_by_role("button", name="Reveal").first.click()
    await expect(page.get_by_text("Write key").first).to_be_visible()


async def file_chosen(page: Page) -> None:
    """A file with columns nobody knows yet."""
    file = {"name": "bed-3.csv", "mimeType": "text/csv", "buffer": FILE}
    await page.get_by_label("CSV, NDJSON or JSON").set_input_files(file)  # type: ignore[arg-type]
    await expect(page.get_by_text("no variable yet")).to_be_visible()


async def file_imported(page: Page) -> None:
    """The same with a line that was refused."""
    await file_chosen(page)
    for column in ("Air temperature", "remark"):
        await page.get_by_role("combobox", name=column).select_option("skip")
    await page.get_by_role("button", name="Import", exact=True).click()
    await expect(page.locator("#progress-text")).to_contain_text("refused")


async def row_added(page: Page) -> None:
    """A place for one more variable."""
    await page.get_by_role("button", name="Add a variable").click()
