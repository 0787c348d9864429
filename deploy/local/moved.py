"""RabbitMQ's data at another place than it was made at."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

# Erlang writes a text as "..." and, when it has characters it does not take for printable, as [47,116,...].
_PLACE = re.compile(r'(\b(?:wal_)?data_dir\s*=>\s*)("(?:[^"\\]|\\.)*"|\[[\d,\s]*\])')


def follow(mnesia: Path) -> int:
    """Tell quorum queues where they are now; how many did not know.

    Each has the absolute path of the data in a file of its own and, started elsewhere, goes on at the old
    place (seen on 3.10.8): what waits in it is missing then, or two brokers write to the same files.
    """
    return sum(_follow(file) for file in _configurations(mnesia))


def _configurations(mnesia: Path) -> Iterator[Path]:
    """Of every member of every Raft system: quorum queues, and those that agree on MQTT's clients."""
    yield from mnesia.glob("*/quorum/*/*/config")
    yield from mnesia.glob("*/coordination/*/*/config")


def _follow(file: Path) -> bool:
    text = file.read_text(encoding="latin-1")
    place = _erlang(str(file.parent.parent))
    there = _PLACE.sub(lambda found: found[1] + place, text)
    if there == text:
        return False
    new = file.with_name("config.new")
    new.write_text(there, encoding="latin-1")
    new.chmod(file.stat().st_mode & 0o777)
    new.replace(file)
    return True


def _erlang(path: str) -> str:
    """A text as Erlang reads it."""
    if path.isascii() and path.isprintable():
        escaped = path.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return f"[{','.join(str(ord(character)) for character in path)}]"
