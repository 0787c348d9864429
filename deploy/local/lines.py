"""Log files as people read them: one line of JSON becomes time, level, who, what, and the rest."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

COLOURS = {"debug": "2", "info": "32", "warning": "33", "error": "31", "critical": "1;31"}
DIM, BOLD = "2", "1"
LONG_TEXTS = ("exception", "stack")
_HEADER = re.compile(r"==> (.*) <==")
# What a log that is not ours may hold, so that nothing of it moves the cursor or paints the terminal.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def show(files: Sequence[Path], count: int, follow: bool, as_json: bool, out: TextIO = sys.stdout) -> int:
    """Print the last lines of these files, and all that follows; as they are when no person looks."""
    out.flush()
    command = ["tail", "-n", str(count), *(["-F"] if follow else []), *map(str, files)]
    if as_json or not out.isatty():
        return subprocess.run(command, check=False).returncode
    only = files[0].stem if len(files) == 1 else ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, errors="replace") as tail:
        assert tail.stdout is not None
        try:
            for text in readable(tail.stdout, only, colours="NO_COLOR" not in os.environ):
                print(text, file=out, flush=True)
        finally:
            tail.terminate()
    return max(tail.returncode, 0)


def readable(lines: Iterable[str], name: str = "", *, colours: bool = True) -> Iterator[str]:
    """What `tail` prints, for people; `name` is the file when there is only one."""
    for line in lines:
        text = line.rstrip("\n")
        if found := _HEADER.fullmatch(text):
            name = Path(found[1]).stem
        elif text or not name:
            yield _one(text, name, colours)


def _one(text: str, name: str, colours: bool) -> str:
    try:
        said = json.loads(text)
    except ValueError:
        said = None
    if isinstance(said, dict) and "event" in said:
        return _ours(said, name, colours)
    return f"{_paint(f'{name:<10}', DIM, colours)} {_plain(text)}"


def _ours(line: dict[str, Any], name: str, colours: bool) -> str:
    """A line of a service: time of day, level, who, what and the rest; long texts on lines of their own."""
    said = {key: _value(value) for key, value in line.items()}
    level, who = said.pop("level", ""), said.pop("service", name)
    first = [
        _paint(said.pop("time", "")[11:23], DIM, colours),
        _paint(f"{level:<8}", COLOURS.get(level, ""), colours),
        f"{name or who:<10}",
        _paint(said.pop("event"), BOLD, colours),
    ]
    long = [each for key in LONG_TEXTS for each in said.pop(key, "").splitlines()]
    rest = [f"{_paint(_plain(key), DIM, colours)}={value}" for key, value in said.items()]
    return "\n".join([" ".join([*first, *rest]), *(f"    {each}" for each in long)])


def _value(value: Any) -> str:
    return _plain(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _plain(text: str) -> str:
    return _CONTROL.sub("?", text)


def _paint(text: str, colour: str, colours: bool) -> str:
    return f"\x1b[{colour}m{text}\x1b[0m" if colours and colour and text else text
