"""A file goes in and comes out again, whatever happens on the way."""

from __future__ import annotations

import csv
import os
import pty
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tests.journeys.conftest import ROOT, Posthouse

pytestmark = pytest.mark.timeout(300)

TIMES = ("--time-column", "date", "--time-format", "%Y/%m/%d %H:%M")
LINES = 40_000


@pytest.fixture
def long_file(tmp_path: Path) -> Path:
    """A reading a minute, enough to be interrupted."""
    start, path = datetime(2020, 1, 1), tmp_path / "long.csv"
    lines = (f"{start + timedelta(minutes=n):%Y/%m/%d %H:%M},{n}" for n in range(LINES))
    path.write_text("date,temp\n" + "\n".join(lines))
    return path


def entries(posthouse: Posthouse, token: str, name: str) -> int:
    [found] = [one for one in posthouse.ask("/v1/datasets", token=token)["items"] if one["name"] == name]
    return int(found["entries"])


def test_the_temperatures_of_seattle_come_back_byte_for_byte(
    posthouse, person, token, seattle_file, tmp_path
):
    options = ("--dataset", "seattle", *TIMES, "--timezone", "-08:00")
    done = posthouse.run("import", str(seattle_file), *options, **person)
    assert done.returncode == 0, done.stderr
    assert "8,759 readings stored, 0 lines refused" in done.stderr
    assert entries(posthouse, token, "seattle") == 8_759
    copy = tmp_path / "copy.csv"
    out = posthouse.run("export", *options, "--output", str(copy), **person)
    assert out.returncode == 0, out.stderr
    assert copy.read_bytes() == seattle_file.read_bytes()


def test_a_time_that_does_not_exist_is_reported_and_never_moved(posthouse, person, seattle_file, tmp_path):
    report = tmp_path / "report.csv"
    options = ("--dataset", "seattle-by-the-clock", *TIMES, "--timezone", "America/Los_Angeles")
    done = posthouse.run("import", str(seattle_file), *options, "--report", str(report), **person)
    assert done.returncode == 1, done.stderr
    with report.open(newline="") as file:
        refused = {int(row["line"]): row for row in csv.DictReader(file)}
    lines = seattle_file.read_text().splitlines()
    assert {lines[number - 1].partition(",")[0]: row["code"] for number, row in refused.items()} == {
        "2010/03/14 02:00": "no_such_time",
        "2010/11/07 01:00": "ambiguous_time",
    }
    out = posthouse.run("export", *options, **person)
    assert out.stdout.splitlines() == [line for n, line in enumerate(lines, 1) if n not in refused]


def test_a_key_of_the_dataset_is_enough(posthouse, token, tmp_path):
    made = posthouse.ask("/v1/datasets", {"name": "by key", "variables": [{"tag": "temp"}]}, token)
    file, report = tmp_path / "some.csv", tmp_path / "report.csv"
    file.write_text(
        'date,temp\n2026/01/01 00:00,1\n2026/01/01 00:01,5" pipe\n2026/01/01 00:02,"a\nb"\nnever,4\n'
    )
    options = ("--dataset", made["id"], *TIMES, "--timezone", "UTC")
    done = posthouse.run(
        "import", str(file), *options, "--report", str(report), POSTHOUSE_KEY=made["write_key"]
    )
    assert done.returncode == 1, done.stderr
    assert [line.split(",")[:2] for line in report.read_text().splitlines()[1:]] == [
        ["3", "malformed"],
        ["6", "bad_time"],
    ]
    out = posthouse.run("export", *options, POSTHOUSE_KEY=made["read_key"])
    assert out.stdout == 'date,temp\n2026/01/01 00:00,1\n2026/01/01 00:02,"a\nb"'
    refused = posthouse.run("import", str(file), *options, "--label", "x", POSTHOUSE_KEY=made["read_key"])
    assert refused.returncode == 2
    assert "403" in refused.stderr


def test_an_import_that_is_interrupted_goes_on(posthouse, person, token, long_file):
    options = ("--dataset", "interrupted", *TIMES, "--timezone", "-08:00")
    with at_a_terminal(posthouse, person, "import", str(long_file), *options) as (process, screen):
        assert any(b"/40,001 lines" in shown for shown in screen)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    stored = entries(posthouse, token, "interrupted")
    assert 0 < stored < LINES
    done = posthouse.run("import", str(long_file), *options, **person)
    assert done.returncode == 0, done.stderr
    assert f"of {LINES + 1:,}" in done.stderr
    assert posthouse.run("export", *options, **person).stdout == long_file.read_text()


def test_an_import_outlives_the_gateway(posthouse, person, token, long_file):
    options = ("--dataset", "outlived", *TIMES, "--timezone", "-08:00")
    with at_a_terminal(posthouse, person, "import", str(long_file), *options) as (process, screen):
        assert any(b"/40,001 lines" in shown for shown in screen)
        gateway = int((posthouse.directory / "run" / "gateway.pid").read_text())
        os.kill(gateway, signal.SIGKILL)
        for _ in screen:  # until it ends
            pass
        assert process.wait(60) == 0
    assert entries(posthouse, token, "outlived") == LINES
    assert posthouse.run("export", *options, **person).stdout == long_file.read_text()


@contextmanager
def at_a_terminal(
    posthouse: Posthouse, person: dict[str, str], *arguments: str
) -> Iterator[tuple[subprocess.Popen[bytes], Iterator[bytes]]]:
    """The command with a terminal for its bar: the process, and what the terminal shows."""
    ours, its = pty.openpty()
    process = subprocess.Popen(
        [ROOT / "posthouse", *arguments], stderr=its, env=posthouse.environment | person, cwd=ROOT
    )
    os.close(its)

    def screen() -> Iterator[bytes]:
        while True:
            try:
                yield os.read(ours, 4_096)
            except OSError:  # the other end is closed
                return

    try:
        yield process, screen()
    finally:
        process.kill()
        process.wait(30)
        os.close(ours)
