"""The checker of the faults tells what is lost, doubled, recovered and unexpected from the journal."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tests.faults.__main__ import chosen
from tests.faults.journal import Count, Journal, count, ledgers
from tests.faults.row import Row
from tests.faults.rows import NOT_YET, ROWS
from tests.faults.run import Depth, Result, write
from tests.faults.table import lines


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """Four readings were begun, three promised; and a command."""
    journal = Journal(tmp_path / "journal.jsonl")
    for value in (1, 2, 3, 4):
        journal.sends("reading", value, f"key-{value}")
    journal.acknowledged("reading", 1, "key-1", 201, 1)
    journal.acknowledged("reading", 2, "key-2", 202)
    journal.acknowledged("reading", 3, "key-3", 201, 2)
    journal.sends("command", 5, "key-5")
    journal.close()
    return journal


def test_what_was_promised_and_is_not_there_is_lost(journal: Journal):
    readings, _ = ledgers(journal.path)
    assert count(readings, [(1, 1), (2, 3)]) == Count(attempted=4, acknowledged=3, stored=2, lost=1)


def test_what_is_there_twice_is_doubled(journal: Journal):
    readings, _ = ledgers(journal.path)
    found = count(readings, [(1, 1), (2, 3), (3, 2), (4, 2)])
    assert found == Count(attempted=4, acknowledged=3, stored=4, doubled=1)


def test_what_is_there_without_a_promise_is_recovered(journal: Journal):
    readings, commands = ledgers(journal.path)
    assert count(readings, [(1, 1), (2, 3), (3, 2), (4, 4)]).recovered == 1
    assert count(commands, [(0, 5)]).recovered == 1


def test_what_nobody_sent_is_unexpected(journal: Journal):
    readings, _ = ledgers(journal.path)
    assert count(readings, [(1, 1), (2, 3), (3, 2), (4, -1)]).unexpected == 1


def test_what_was_promised_as_another_entry_is_misnumbered(journal: Journal):
    readings, _ = ledgers(journal.path)
    assert count(readings, [(2, 1), (1, 3), (3, 2)]).misnumbered == 2


def test_what_is_about_to_be_sent_is_on_disk_before_the_journal_is_closed(tmp_path: Path):
    journal = Journal(tmp_path / "journal.jsonl")
    journal.sends("reading", 1, "key-1")
    readings, _ = ledgers(journal.path)
    assert readings.attempted == {1}
    journal.close()


def test_counts_of_readings_and_commands_add_up():
    assert Count(attempted=1, lost=2) + Count(attempted=3, doubled=4) == Count(attempted=4, lost=2, doubled=4)


def test_rows_are_named_once_and_none_is_both_built_and_missing():
    names = [row.id for row in ROWS]
    assert len(set(names)) == len(names)
    assert not set(names) & set(NOT_YET)


def test_rows_are_chosen_by_name_in_their_own_order():
    assert [row.id for row in chosen(["r3", "R1"])] == ["R1", "R3"]
    assert chosen([]) == list(ROWS)
    with pytest.raises(SystemExit, match="R99"):
        chosen(["R99"])


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_a_row_says_what_it_is_and_can_be_run(row: Row):
    assert row.words
    assert row.faults >= 1
    assert Depth().of(row, bare=False) == row.faults
    assert Depth(faults=2).of(row, bare=False) == 2
    assert row.bare is None or row.bare.words


def test_the_table_and_the_file_say_the_same(tmp_path: Path):
    result = Result("R1", "kill -9 RabbitMQ", 2, Count(10, 10, 9, lost=1), {"recovery s": 3.0}, ["1 lost"])
    text = "\n".join(lines([result], {"R19": "late replies"}))
    assert "MISSED" in text
    assert "missed: 1 lost" in text
    assert "R19" in text
    assert "not yet" in text
    write(tmp_path / "latest.json", [result], 7, ["R19"])
    found = msgspec.json.decode((tmp_path / "latest.json").read_bytes())
    assert [row["row"] for row in found] == ["R1", "R19"]
    assert (found[0]["seed"], found[0]["lost"], found[0]["passed"]) == (7, 1, False)
    assert found[1] == {"row": "R19", "words": "not yet", "faults": 0, "passed": None}


def test_rows_that_are_not_run_stay_as_they_were(tmp_path: Path):
    path = tmp_path / "latest.json"
    for name in ("R10", "R2 bare", "R2"):
        write(path, [Result(name, "as it was")], 1, [])
    write(path, [Result("R2", "now")], 2, [])
    found = msgspec.json.decode(path.read_bytes())
    assert [(row["row"], row["seed"]) for row in found] == [("R2", 2), ("R2 bare", 1), ("R10", 1)]
