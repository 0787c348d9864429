"""`python -m tests.house.generated`: writes the tables of the documentation that follow from the code."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from deploy.local import settings as launcher
from deploy.settings import settings_of_services
from shared.contracts.base import Command, Event, Message, Query

ROOT = Path(__file__).parents[2]
KINDS: tuple[type[Message], ...] = (Command, Query, Event)


def services() -> list[str]:
    """Every service there is, the gateway first."""
    found = [path.parent.name for path in ROOT.glob("services/*/__init__.py")]
    return sorted(found, key=lambda name: (name != "gateway", name))


def contracts() -> list[type[Message]]:
    """Every message that has a topic, in order of their definition."""
    found: dict[str, type[Message]] = {}
    for path in sorted(ROOT.glob("shared/contracts/*.py")):
        module = importlib.import_module(f"shared.contracts.{path.stem}")
        for thing in vars(module).values():
            if isinstance(thing, type) and issubclass(thing, Message) and thing.topic:
                found[thing.topic] = thing
    return list(found.values())


def topics_table() -> str:
    """A row for each service: what it is for, and the messages it owns."""
    lines = ["| service | what it is for | commands | queries | events |", "|---|---|---|---|---|"]
    for service in services():
        cells = [_names(service, kind) for kind in KINDS]
        lines.append(f"| `{service}` | {_purpose(service)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _names(service: str, kind: type[Message]) -> str:
    owned = (message.topic.partition(".") for message in contracts() if issubclass(message, kind))
    return ", ".join(name for owner, _, name in owned if owner == service)


def _purpose(service: str) -> str:
    text = ast.get_docstring(ast.parse((ROOT / "services" / service / "__init__.py").read_text())) or ""
    return text.partition("\n")[0].rstrip(".")


def settings_tables() -> str:
    """One table for the launcher, one for what every service has, one for each service's own."""
    parts: dict[str, Iterable[Any]] = {"the launcher": launcher.TABLE, **settings_of_services()}
    return "\n\n".join(f"### For {title}\n\n{_rows(rows)}" for title, rows in parts.items() if rows)


def _rows(settings: Iterable[Any]) -> str:
    lines = ["| variable | default | what it is for |", "|---|---|---|"]
    for one in settings:
        shown = "set by the launcher" if one.default is None else f"`{one.default}`" if one.default else "-"
        lines.append(f"| `{one.name}` | {shown} | {one.text}{' (secret)' if one.secret else ''} |")
    return "\n".join(lines)


BLOCKS: dict[Path, dict[str, Callable[[], str]]] = {
    ROOT / "README.md": {"topics": topics_table},
    ROOT / "docs" / "operations.md": {"settings": settings_tables},
}


def rewritten() -> Iterator[tuple[Path, str, str]]:
    """Each file, its text, and what the text should be."""
    for path, blocks in BLOCKS.items():
        before = after = path.read_text(encoding="utf-8")
        for name, make in blocks.items():
            pattern = rf"(<!-- {name}: .*? -->\n).*?(\n<!-- end -->)"
            after = re.sub(pattern, lambda found: found[1] + make() + found[2], after, flags=re.DOTALL)  # noqa: B023
        yield path, before, after


if __name__ == "__main__":
    for path, _, text in rewritten():
        path.write_text(text, encoding="utf-8")
