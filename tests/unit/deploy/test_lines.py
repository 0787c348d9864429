"""Log files on a terminal are for people; anywhere else they stay as they were written."""

from __future__ import annotations

import os
import pty
from pathlib import Path

from deploy.local.lines import readable, show

OURS = (
    '{"time":"2026-01-31T12:00:00.123456Z","level":"error","service":"ingest","event":"frame_dead_lettered",'
    '"topic":"ingest.x","count":3,"exception":"Traceback:\\n  ValueError: no"}\n'
)
BROKER = "2026-01-31 12:00:00.000 [info] <0.1.0> ready\n"


def test_a_line_says_when_how_grave_who_and_what():
    assert [*readable([OURS], "ingest-2", colours=False)] == [
        "12:00:00.123 error    ingest-2   frame_dead_lettered topic=ingest.x count=3\n"
        "    Traceback:\n      ValueError: no"
    ]


def test_lines_of_several_files_say_whose_they_are():
    lines = ["==> /x/logs/rabbitmq.log <==\n", BROKER, "\n", "==> /x/logs/auth.log <==\n", OURS]
    first, second = readable(lines, colours=False)
    assert first == f"rabbitmq   {BROKER.rstrip()}"
    assert second.startswith("12:00:00.123 error    auth ")


def test_the_level_has_a_colour_and_a_log_cannot_paint_the_terminal_itself():
    [painted] = readable([OURS.replace("ingest.x", "\\u001b[2J")], "ingest")
    assert "\x1b[31merror   \x1b[0m" in painted
    assert "\x1b[2J" not in painted
    [foreign] = readable(["\x1b]0;title\x07text\n"], "redis", colours=False)
    assert foreign == "redis      ?]0;title?text"


def test_on_a_terminal_they_are_readable_and_as_json_when_asked(tmp_path: Path, capfd):
    log = tmp_path / "ingest.log"
    log.write_text("first\n" + OURS)
    leader, follower = pty.openpty()
    with os.fdopen(follower, "w") as terminal, open(leader) as screen:
        assert show([log], 1, follow=False, as_json=False, out=terminal) == 0
        assert "frame_dead_lettered" in screen.readline()
        assert show([log], 1, follow=False, as_json=True, out=terminal) == 0
    assert capfd.readouterr().out == OURS
