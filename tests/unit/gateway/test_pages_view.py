"""What templates call and what pages name: words for times, escaping, static files, what is told once."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import pytest

from services.gateway.pages import flash
from services.gateway.pages.agents import words_for
from services.gateway.pages.flash import Told
from services.gateway.pages.view import STATIC, ago, count, static, static_file, when
from shared.vault import Vault
from tests.unit.gateway.door import House
from tests.unit.gateway.test_page_scripts import run

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = 86_400
WORDS = {
    0: "just now",
    4: "just now",
    -4: "just now",
    5: "5 seconds ago",
    59: "59 seconds ago",
    60: "1 minute ago",
    119: "1 minute ago",
    3_599: "59 minutes ago",
    3_600: "1 hour ago",
    2 * DAY - 1: "1 day ago",
    30 * DAY - 1: "29 days ago",
    30 * DAY: "30 Jan 2026",
    400 * DAY: "25 Jan 2025",
    -5: "in 5 seconds",
    -90: "in 2 minutes",
    -(DAY - 9): "in 24 hours",
    -DAY: "in 1 day",
    -(7 * DAY - 9): "in 7 days",
    -7 * DAY: "in 7 days",
    -40 * DAY: "10 Apr 2026",
}


def test_times_are_words() -> None:
    assert {seconds: ago(NOW - timedelta(seconds=seconds), NOW) for seconds in WORDS} == WORDS


def test_the_script_has_the_same_words() -> None:
    # What the page has beyond modules of its own is not there in Node.
    script = """
        const source = given.source.replace(/export /g, "").split("\\nfunction tellTimes")[0];
        const ago = new Function(`${source}; return ago;`)();
        const now = new Date(given.now);
        return given.seconds.map((seconds) => ago(new Date(now - seconds * 1000), now));
    """
    source = (STATIC / "app.js").read_text()
    given = {"source": source, "now": NOW.isoformat(), "seconds": list(WORDS)}
    assert run(script, "series.js", given) == list(WORDS.values())


def test_a_time_tells_itself_exactly_to_whoever_asks() -> None:
    shown = str(when(NOW))
    assert 'datetime="2026-03-01T12:00:00.000000Z"' in shown
    assert 'title="2026-03-01T12:00:00.000000Z"' in shown
    assert str(when(None)) == "never"
    assert str(when(None, "<b>")) == "&lt;b&gt;"


def test_numbers_have_their_noun() -> None:
    assert [count(number, "reading") for number in (0, 1, 12_345)] == [
        "0 readings",
        "1 reading",
        "12,345 readings",
    ]
    assert count(2, "entry", "entries") == "2 entries"


# -- static files


def test_a_static_file_is_named_by_what_is_in_it() -> None:
    address = static("app.css")
    found = static_file("app.css")
    assert found is not None
    assert address == f"/static/app.css?v={sha256(found[0]).hexdigest()[:12]}"
    with pytest.raises(LookupError):
        static("app.scss")


@pytest.mark.parametrize(
    "name",
    ["../view.py", "vendor/../../view.py", "/etc/passwd", "vendor", "", "vendor/SHA256SUMS", "a\0.css"],
)
def test_only_files_of_pages_are_static(name: str) -> None:
    assert static_file(name) is None


def test_what_others_wrote_is_as_they_published_it() -> None:
    folder = STATIC / "vendor"
    sums = dict(line.split()[::-1] for line in (folder / "SHA256SUMS").read_text().splitlines())
    files = {path.name: sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    assert files.keys() - sums.keys() == {"SHA256SUMS", "README.md"}
    assert files.items() >= sums.items()


def test_no_static_file_calls_another_host() -> None:
    ours = [path for path in STATIC.rglob("*") if path.suffix in (".js", ".css", ".html", ".svg")]
    for path in ours:
        addresses = set(re.findall(r"https?://[\w.-]+", path.read_text()))
        assert addresses <= {"http://www.w3.org", "https://github.com"}, path


async def test_a_file_is_kept_by_its_address_and_asked_again_without_it(pages: House) -> None:
    for_ever = await pages.request("GET", static("app.css"))
    assert for_ever.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    again = await pages.request("GET", "/static/app.css")
    assert again.headers["Cache-Control"] == "no-cache"
    headers = {"If-None-Match": again.headers["ETag"]}
    assert (await pages.request("GET", "/static/app.css", headers=headers)).status == 304
    assert (await pages.request("GET", "/static/none.css")).status == 404
    head = await pages.request("HEAD", "/login")
    assert head.status == 200
    assert head.body == b""


# -- what the next page says once


def test_what_is_told_arrives_and_nobody_else_can_write_it(vault: Vault) -> None:
    cookie = flash.remember(vault, Told("success", "Ärger & <Freude>"))
    value = cookie.partition(";")[0].partition("=")[2]
    assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= {part.strip() for part in cookie.split(";")}
    assert flash.told(vault, {flash.NAME: value}) == (Told("success", "Ärger & <Freude>"),)
    forged = json.dumps(["success", "You have won"])
    for other in ("", "x", value[:-2], value[::-1], forged, "ä" * 40):
        assert flash.told(vault, {flash.NAME: other}) == ()
    assert flash.told(vault, {}) == ()


# -- what clients call themselves


@pytest.mark.parametrize(
    ("agent", "words"),
    [
        ("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "Firefox on Linux"),
        (
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
            "Chrome/140.0.0.0 Safari/537.36 Edg/140.0.0.0",
            "Edge on Windows",
        ),
        (
            "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
            "Version/18.0 Mobile/15E148 Safari/604.1",
            "Safari on iPhone",
        ),
        (
            "Mozilla/5.0 (Linux; Android 15) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 "
            "Mobile Safari/537.36",
            "Chrome on Android",
        ),
        ("curl/8.14.1", "curl"),
        ("Python-urllib/3.11", "Python-urllib"),
        ("", "Unknown"),
        ("<b>" * 100, ("<b>" * 100)[:40]),
    ],
)
def test_a_device_is_called_as_its_owner_would(agent: str, words: str) -> None:
    assert words_for(agent) == words
