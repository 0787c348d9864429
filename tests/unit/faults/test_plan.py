"""The order in which `make faults` runs its rows, and that the whole is expected to fit into an hour."""

from __future__ import annotations

import json
from pathlib import Path

from tests.faults.places import reserve
from tests.faults.plan import BARE_SIDE_BY_SIDE, Part, seconds, stages
from tests.faults.row import Bare, Row
from tests.faults.rows import ROWS
from tests.faults.run import Depth, Result, place_of
from tests.faults.scene import Scene
from tests.faults.table import lines

PROCESS_ROWS = {"R1", "R2", "R3", "R4", "R6", "R7", "R9", "R10"}


async def _nothing(scene: Scene) -> None:
    return


def _row(name: str, *, beside: str = "", alone: bool = False) -> Row:
    return Row(name, name, _nothing, Bare("bare", alone=alone), beside=beside)


def test_a_row_runs_at_the_side_of_the_one_it_names_and_variants_come_last():
    first, second, third = _row("R1"), _row("R2"), _row("R3", beside="R1")
    found = stages([first, second, third], Depth())
    assert found == [
        [Part(first, False), Part(third, False)],
        [Part(second, False)],
        [Part(first, True), Part(second, True), Part(third, True)],
    ]


def test_a_row_whose_neighbour_was_not_chosen_runs_alone():
    assert stages([_row("R3", beside="R1")], Depth(bare=False))[0][0].row.id == "R3"


def test_a_variant_that_has_to_be_alone_is():
    rows = [_row("R1"), _row("R2", alone=True), _row("R3")]
    assert [[part.row.id for part in stage] for stage in stages(rows, Depth())[3:]] == [["R1", "R3"], ["R2"]]


def test_every_row_has_a_variant_and_runs_once():
    parts = [part for stage in stages(ROWS, Depth()) for part in stage]
    assert sorted((part.row.id, part.bare) for part in parts) == [
        (name, bare) for name in sorted(row.id for row in ROWS) for bare in (False, True)
    ]
    assert max(map(len, stages(ROWS, Depth()))) <= BARE_SIDE_BY_SIDE


def test_the_whole_fits_into_an_hour_with_twenty_faults_for_each_row_that_kills_processes():
    assert seconds(stages(ROWS, Depth()), Depth()) < 60 * 60
    assert all(row.faults >= 20 for row in ROWS if row.id in PROCESS_ROWS)


def test_rows_are_shown_in_their_order_with_limits_of_both_kinds():
    late, early = Result("R10", "late"), Result("R2 bare", "early", figures={"p99 s": 1, "p99 s limit": 2.0})
    late.figures = {"counted": 3, "counted at least": 1.0}
    shown = list(lines([late, early], {}))
    assert [line.split()[0] for line in shown if line and not line.startswith(" ")] == ["row", "R2", "R10"]
    assert "p99 s 1 (<= 2)" in "".join(shown)
    assert "counted 3 (>= 1)" in "".join(shown)
    assert sorted(["S7", "R10", "R9", "R9 bare"], key=place_of) == ["R9", "R9 bare", "R10", "S7"]


def test_instances_side_by_side_never_have_a_port_in_common(tmp_path: Path):
    reserve(tmp_path / "one")
    web = reserve(tmp_path / "two")
    one, two = (json.loads((tmp_path / name / "run" / "ports.json").read_text()) for name in ("one", "two"))
    assert web == two["web"]
    assert not set(one.values()) & set(two.values())
