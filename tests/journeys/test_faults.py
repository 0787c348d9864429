"""The harness of `make faults` in its short form: rows that hold, and the same without their protection."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.faults import __main__ as faults
from tests.faults.__main__ import SHORT_DEPTH
from tests.faults.rows import r03
from tests.faults.run import run

pytestmark = pytest.mark.timeout(240)
SEED = 1


async def test_a_row_counts_nothing_lost_and_nothing_doubled():
    result = await run(r03.ROW, SHORT_DEPTH, SEED, print)
    assert result.passed, result.missed
    assert result.faults >= 1
    assert result.count.acknowledged >= SHORT_DEPTH.least
    assert result.count.stored == result.count.acknowledged + result.count.recovered


async def test_the_same_row_without_its_protection_finds_doubles():
    result = await run(r03.ROW, SHORT_DEPTH, SEED, print, bare=True)
    assert result.count.doubled > 0
    assert result.passed, result.missed


async def test_rows_and_variants_run_through_and_what_was_found_is_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    kept = tmp_path / "latest.json"
    monkeypatch.setattr(faults, "LATEST", kept)
    monkeypatch.setenv("SHORT", "1")
    monkeypatch.setenv("SEED", str(SEED))
    missed = await faults.main(["R26"])
    rows = json.loads(kept.read_text())
    assert [row["row"] for row in rows] == ["R26", "R26 bare"]
    assert not missed, [row["missed"] for row in rows]
    assert rows[0]["doubled"] == rows[0]["lost"] == 0 < rows[1]["doubled"]
    said = capsys.readouterr().out
    assert f"2 runs, about 1 min; seed {SEED}" in said
