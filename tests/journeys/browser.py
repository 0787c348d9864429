"""A person at a browser: pages of the running instance, and what went wrong while they were looked at.

A test asks for `page` (one window) or `new_page` (as many as it likes) and fails at its end on anything a
person would find in the console: errors, warnings, exceptions, failed requests, answers of 400 and above,
calls to another host. What a test does on purpose it announces: `noticed(page).allow(422)`.
"""

from __future__ import annotations

import asyncio
import base64
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

from playwright.async_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Request,
    Response,
    WebError,
    async_playwright,
    expect,
)

from tests.servers import required

ROOT = Path(__file__).parents[2]
AXE = ROOT / "tests/clients/node_modules/axe-core/axe.min.js"
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SECONDS = 20
SETTLED_SECONDS = 3
expect.set_options(timeout=SECONDS * 1000)
Theme = Literal["light", "dark"]
LOOK_SECONDS = 0.05
FITS = """(width) => {
  const { scrollWidth, clientWidth } = document.documentElement;
  return innerWidth === width && scrollWidth <= clientWidth;
}"""
# What sticks out, without what is inside of something that scrolls by itself.
TOO_WIDE = """() => {
  const room = document.documentElement.clientWidth;
  const scrolls = (one) => one && one !== document.body
    && (getComputedStyle(one).overflowX !== "visible" || scrolls(one.parentElement));
  return [...document.querySelectorAll("body *")]
    .filter((one) => one.getBoundingClientRect().right > room + 1 && !scrolls(one.parentElement))
    .slice(0, 5).map((one) => one.outerHTML.slice(0, 120));
}"""
# A page that is left while it asks something, or a download: nothing a person would notice.
LEFT = "net::ERR_ABORTED"
BAD_WORDS = ("error", "warning", "assert")


@asynccontextmanager
async def running_browser() -> AsyncIterator[Browser]:
    """The browser that `./posthouse test` fetched."""
    program = required("POSTHOUSE_TEST_CHROMIUM")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        try:
            yield browser
        finally:
            await browser.close()


@dataclass
class Noticed:
    """What a window did that nobody wants, without what the test announced."""

    host: str
    found: list[str] = field(default_factory=list)
    _allowed: set[tuple[int, str]] = field(default_factory=set)
    _said: list[tuple[str, str]] = field(default_factory=list)
    _answered: dict[str, int] = field(default_factory=dict)
    _words: list[str] = field(default_factory=list)
    _offline: bool = False

    def allow(self, status: int, path: str = "") -> None:
        """From now on answers of this status are meant to be (on paths that begin so)."""
        self._allowed.add((status, path))

    def allow_words(self, words: str) -> None:
        """A line of the console that has these words is meant to be."""
        self._words.append(words)

    def allow_offline(self) -> None:
        """Requests may fail: the test cuts the line or stops the server."""
        self._offline = True

    def watch(self, context: BrowserContext) -> None:
        """Listen to every window of this context."""
        context.on("console", self._console)
        context.on("weberror", self._exception)
        context.on("request", self._request)
        context.on("requestfailed", self._failed)
        context.on("response", self._response)

    def complaints(self) -> list[str]:
        """Everything that nobody announced."""
        said = [
            f"console: {text} ({url})"
            for text, url in self._said
            if not self._is_allowed(url) and not any(words in text for words in self._words)
        ]
        return self.found + said

    def _is_allowed(self, url: str) -> bool:
        # Chromium repeats a refused request in the console, at the address that was asked.
        status = self._answered.get(url)
        if status is None:
            return self._offline and bool(url)
        return self._may(status, urlsplit(url).path)

    def _may(self, status: int, path: str) -> bool:
        return any(status == allowed and path.startswith(begin) for allowed, begin in self._allowed)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in BAD_WORDS:
            self._said.append((message.text, message.location["url"]))

    def _exception(self, error: WebError) -> None:
        self.found.append(f"exception: {error.error}")

    def _request(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in ("data", "blob", "about") and parts.netloc != self.host:
            self.found.append(f"another host: {request.method} {request.url}")

    def _failed(self, request: Request) -> None:
        if request.failure != LEFT and not self._offline:
            self.found.append(f"failed: {request.method} {request.url} {request.failure}")

    def _response(self, response: Response) -> None:
        if response.status >= 400:
            self._answered[response.url] = response.status
            if not self._may(response.status, urlsplit(response.url).path):
                self.found.append(f"{response.status}: {response.request.method} {response.url}")


_noticed: WeakKeyDictionary[BrowserContext, Noticed] = WeakKeyDictionary()


def noticed(page: Page) -> Noticed:
    """What went wrong in the windows that share this page's cookies."""
    return _noticed[page.context]


@dataclass
class Windows:
    """Opens windows on one instance, each with a profile of its own; all are looked over at the end."""

    browser: Browser
    url: str
    contexts: list[BrowserContext] = field(default_factory=list)

    async def __call__(
        self,
        *,
        javascript: bool = True,
        theme: Theme = "light",
        size: tuple[int, int] = (1440, 900),
        **more: Any,
    ) -> Page:
        """A new person: no cookie, nothing cached. `more` as Playwright's `new_context` takes it."""
        context = await self.browser.new_context(
            base_url=self.url,
            java_script_enabled=javascript,
            color_scheme=theme,
            viewport={"width": size[0], "height": size[1]},
            locale="en-GB",
            timezone_id="Europe/Berlin",
            **more,
        )
        context.set_default_timeout(SECONDS * 1000)
        watcher = _noticed[context] = Noticed(urlsplit(self.url).netloc)
        watcher.watch(context)
        self.contexts.append(context)
        return await context.new_page()

    async def close(self) -> None:
        """Close all, and fail with everything that nobody announced."""
        complaints = []
        for context in self.contexts:
            await context.close()
            complaints += _noticed[context].complaints()
        assert not complaints, "\n".join(complaints)


async def sign_in(page: Page, person: dict[str, str], path: str = "/") -> None:
    """As somebody does it: name, password, Enter; then the page that was wanted."""
    await page.goto(f"/login?next={path}")
    await page.get_by_label("Name or e-mail").fill(person["POSTHOUSE_NAME"])
    await page.get_by_label("Password", exact=True).fill(person["POSTHOUSE_PASSWORD"])
    await page.get_by_label("Password", exact=True).press("Enter")
    await page.wait_for_url(lambda url: urlsplit(url).path == urlsplit(path).path)


async def check_access(page: Page) -> None:
    """What axe finds serious or critical fails the test, with the places."""
    await page.evaluate(AXE.read_text())
    answer = await page.evaluate("axe.run(document, {resultTypes: ['violations'], preload: false})")
    serious = [
        f"{rule['impact']} {rule['id']}: {rule['help']}\n  {node['html'][:200]}\n  {node['failureSummary']}"
        for rule in answer["violations"]
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"]
    ]
    assert not serious, f"{page.url}\n" + "\n".join(serious)


async def check_width(page: Page, width: int) -> None:
    """At this width nothing has to be scrolled sideways, as soon as everything has found its size."""
    size = page.viewport_size
    assert size is not None
    await page.set_viewport_size({"width": width, "height": size["height"]})
    end = time.monotonic() + SETTLED_SECONDS
    while True:
        fits = await page.evaluate(FITS, width)
        if fits or time.monotonic() > end:
            break
        await asyncio.sleep(LOOK_SECONDS)
    wide = [] if fits else await page.evaluate(TOO_WIDE)
    await page.set_viewport_size(size)
    assert fits, f"{page.url} at {width} px is too wide: {wide}"


@dataclass(frozen=True)
class Picture:
    """What every fifth dot of a picture says: how many colours, and how much has the commonest one."""

    width: int
    height: int
    colours: int
    commonest: float

    @property
    def is_empty(self) -> bool:
        """One colour, or as good as one."""
        return self.colours < 4 or self.commonest > 0.9995


_eyes: WeakKeyDictionary[Browser, Page] = WeakKeyDictionary()


async def look_at(browser: Browser, png: bytes) -> Picture:
    """Read a picture as a browser does."""
    if browser not in _eyes:
        _eyes[browser] = await browser.new_page()
    facts = await _eyes[browser].evaluate(
        """async (text) => {
              const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
              const bitmap = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
              const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
              const pen = canvas.getContext("2d", { willReadFrequently: true });
              pen.drawImage(bitmap, 0, 0);
              const { data } = pen.getImageData(0, 0, bitmap.width, bitmap.height);
              const pixels = new Uint32Array(data.buffer).filter((_, i) => i % 5 === 0);
              const counts = new Map();
              for (const pixel of pixels) counts.set(pixel, (counts.get(pixel) ?? 0) + 1);
              const most = Math.max(...counts.values());
              return [bitmap.width, bitmap.height, counts.size, most / pixels.length];
            }""",
        base64.b64encode(png).decode(),
    )
    return Picture(*facts)


def pictures_place() -> Path:
    """Where screenshots go: POSTHOUSE_SCREENSHOTS, else .local/test/screenshots."""
    place = Path(os.environ.get("POSTHOUSE_SCREENSHOTS") or ROOT / ".local/test/screenshots")
    place.mkdir(parents=True, exist_ok=True)
    return place
