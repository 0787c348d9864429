"""The session of the README works as it is pasted, on a fresh system and again."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from tests.house.test_docs import curl_session
from tests.journeys.conftest import Posthouse

pytestmark = pytest.mark.timeout(300)


def pasted(posthouse: Posthouse, tmp_path: Path) -> list[str]:
    """What the session prints; every command of it must succeed."""
    shell = shutil.which("dash") or "sh"
    with suppress(FileExistsError):
        (tmp_path / ".local").symlink_to(posthouse.directory)
    done = subprocess.run(
        [shell, "-eu"],
        input=curl_session(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def test_the_session_can_be_pasted_and_pasted_again(posthouse: Posthouse, tmp_path: Path) -> None:
    for _ in range(2):
        printed = "\n".join(pasted(posthouse, tmp_path))
        check(printed)
    assert "there is an account already" in printed


def check(printed: str) -> None:
    assert printed.count('"entry":1') == 2  # the repeat under the same key was answered alike
    assert '"no_such_time"' in printed
    assert printed.endswith(
        "at,temp,door\n"
        "2026-01-01T11:00:00.000000Z,22.5,\n"
        "2026-01-01T11:01:00.000000Z,22.75,open\n"
        "2026-03-08T09:30:00.000000Z,9.5,\n"
        "2026-03-08T10:30:00.000000Z,9.7,"
    )
