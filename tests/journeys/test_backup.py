"""What the page on operations says about backup and restore, done as it is pasted."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.journeys.conftest import ROOT, START_SECONDS, Posthouse

pytestmark = pytest.mark.timeout(300)


def commands(section: str) -> str:
    """The commands of a section."""
    page = (ROOT / "docs" / "operations.md").read_text()
    [found] = re.findall(rf"^## {section}\n.*?^```sh\n(.*?)^```$", page, re.M | re.S)
    return str(found)


@pytest.fixture
def checkout(posthouse: Posthouse, tmp_path: Path) -> Path:
    """A directory that looks like the checkout of this instance."""
    entry = tmp_path / "posthouse"
    entry.write_text(f'#!/bin/sh\nexec {ROOT}/posthouse "$@"\n')
    entry.chmod(0o755)
    (tmp_path / ".local").symlink_to(posthouse.directory)
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    (tmp_path / "posthouse.env").symlink_to(posthouse.directory / "posthouse.env")
    return tmp_path


def paste(posthouse: Posthouse, checkout: Path, text: str) -> None:
    done = subprocess.run(
        [shutil.which("dash") or "sh", "-eu"],
        input=text,
        env=posthouse.environment,
        cwd=checkout,
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_backup_brings_back_what_was_there(posthouse, person, checkout):
    names = ("--dataset", "kept", "--time-column", "when", "--time-format", "%Y-%m-%d", "--timezone", "UTC")
    kept = checkout / "kept.csv"
    kept.write_text("when,temp\n2026-01-01,1\n2026-01-02,2.50")
    assert posthouse.run("import", str(kept), *names, **person).returncode == 0
    paste(posthouse, checkout, commands("Backup"))
    assert (checkout / "posthouse.env.backup").read_text() == (checkout / "posthouse.env").read_text()
    (checkout / "later.csv").write_text("when,temp\n2026-01-03,3\n")
    assert posthouse.run("import", str(checkout / "later.csv"), *names, **person).returncode == 0
    paste(posthouse, checkout, commands("Restore"))
    assert posthouse.run("export", *names, **person).stdout == kept.read_text()
    again = posthouse.run("import", str(kept), *names, **person)
    assert "0 readings stored" in again.stderr
    assert posthouse.run("doctor").returncode == 0  # no message died of it
