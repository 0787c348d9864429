"""What a client calls itself, in words a person knows their own devices by."""

from __future__ import annotations

# The first that is found names it: browsers carry the names of those they want to be taken for.
_BROWSERS = (
    ("Edg", "Edge"),
    ("OPR/", "Opera"),
    ("Vivaldi/", "Vivaldi"),
    ("SamsungBrowser/", "Samsung Internet"),
    ("Firefox/", "Firefox"),
    ("FxiOS/", "Firefox"),
    ("CriOS/", "Chrome"),
    ("Chrome/", "Chrome"),
    ("Safari/", "Safari"),
)
_SYSTEMS = (
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Android", "Android"),
    ("CrOS", "ChromeOS"),
    ("Windows", "Windows"),
    ("Mac OS X", "macOS"),
    ("Linux", "Linux"),
)
MOST = 40


def words_for(agent: str) -> str:
    """`Firefox on Linux`; a program by the name it gives (RFC 9110, 10.1.5); `Unknown` for none."""
    browser = _first(_BROWSERS, agent) if agent.startswith("Mozilla/") else ""
    system = _first(_SYSTEMS, agent)
    if browser and system:
        return f"{browser} on {system}"
    return browser or agent.partition("/")[0].strip()[:MOST] or "Unknown"


def _first(marks: tuple[tuple[str, str], ...], agent: str) -> str:
    return next((name for mark, name in marks if mark in agent), "")
