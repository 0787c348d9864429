"""Ratios, targets, and the two forms of the result."""

from __future__ import annotations

import json

import pytest

from benchmarks.table import (
    Cost,
    Row,
    Target,
    judged,
    lined_up,
    missed,
    range_of_limit,
    ratio_of,
    shown,
    to_json,
    to_text,
)


def test_a_ratio_is_the_median_of_those_inside_each_rotation():
    ratio = ratio_of([(10, 10), (30, 10), (20, 10)])
    assert (ratio.median, ratio.low, ratio.high) == (2.0, 1.0, 3.0)


def test_a_machine_that_slows_down_for_both_changes_no_ratio():
    assert ratio_of([(10, 5), (1, 0.5)]).median == 2.0


def test_somebody_who_answered_nothing_is_infinitely_slow():
    assert ratio_of([(10, 0)]).median == float("inf")


@pytest.mark.parametrize(
    ("target", "ratio", "met"),
    [
        (Target(0.5, 0.6), 0.5, True),
        (Target(0.5, 0.6), 0.499, False),
        (Target(1.5, lower=True), 1.5, True),
        (Target(1.5, lower=True), 1.51, False),
    ],
)
def test_a_target_is_met_at_its_value(target: Target, ratio: float, met: bool) -> None:
    row = judged(Row(part="query", against="limit"), ratio_of([(ratio, 1)]), target)
    assert (row.met, row.target, row.stretch) == (met, target.value, target.stretch)


def test_without_a_target_nothing_is_met_or_missed():
    row = judged(Row(part="noise", against="limit"), ratio_of([(1, 1)]), None)
    assert row.met is None
    assert missed([row]) == 0


ROW = judged(
    Row(
        part="command",
        against="limit",
        connections=64,
        ours=20_553.0,
        theirs=32_091.0,
        unit="/s",
        cost=Cost(2.83, 6.62, {"gateway": 0.031, "auth": 0.0001}),
        their_cost=Cost(1.77, 7.91, {"web": 0.03}),
        note="with all promises",
    ),
    ratio_of([(20_553, 32_091)]),
    Target(0.45, 0.60),
)
MISSING = Row(part="command", against="celery_rpc", connections=64, note="missing: no wheel")


def test_the_json_is_a_list_with_the_agreed_fields():
    rows = json.loads(to_json([ROW, MISSING]))
    agreed = {"part", "against", "connections", "ours", "theirs", "ratio", "target", "met"}
    assert all(agreed <= set(row) for row in rows)
    assert rows[0]["ratio"] == pytest.approx(0.640, abs=0.001)
    assert rows[0]["met"] is True
    assert [rows[1][name] for name in ("ours", "theirs", "ratio", "met")] == [None] * 4


def test_the_text_says_ratio_spread_target_latency_and_cpu():
    text = to_text([ROW, MISSING])
    assert "0.640 [0.640..0.640]" in text
    assert ">= 0.45 (0.6)" in text
    assert "2.83/6.62" in text
    assert "gateway 0.031" in text
    assert "auth" not in text
    assert "- command, celery_rpc: missing: no wheel" in text


def test_a_target_that_is_not_reached_is_counted():
    slow = judged(Row(part="bulk", against="copy_bulk"), ratio_of([(1, 2)]), Target(0.8))
    assert missed([ROW, MISSING, slow]) == 1
    assert "NO" in to_text([slow])


def test_columns_line_up():
    lines = lined_up(("a", "bb"), [("long", "x")]).splitlines()
    assert lines == ["| a    | bb |", "|------|----|", "| long | x  |"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.5834, "0.583"), (1.234, "1.23"), (14.23, "14.2"), (20_553.4, "20,553"), (None, "-")],
)
def test_figures_are_shown_with_what_counts(value: float | None, text: str) -> None:
    assert shown(value) == text


def test_a_note_of_several_rows_is_said_once():
    other = Row(part="command", against="nameko_rpc", connections=64, note=MISSING.note)
    assert "- command, celery_rpc; command, nameko_rpc: missing: no wheel" in to_text([MISSING, other])


def test_the_cpu_of_ours_is_said_once_however_many_it_is_compared_with():
    other = judged(ROW, ratio_of([(1, 1)]), None)
    assert to_text([ROW, other]).count("gateway 0.031") == 1


def test_what_the_same_program_did_in_the_course_of_a_run_is_the_noise():
    slow = Row(part="query", against="limit", connections=64, theirs=16_000.0)
    text = range_of_limit([ROW, slow, MISSING])
    assert text == "the limit at 64 connections moved from 16,000 to 32,091/s between parts"
    assert not range_of_limit([ROW])
