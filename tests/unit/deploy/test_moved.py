"""Data that was moved: quorum queues are told where they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.local.moved import follow

CONFIG = """#{await_condition_timeout => 30000,
  machine => {module,rabbit_fifo,#{queue_resource => {resource,<<"/">>,queue,<<"data_dir">>}}},
  system_config =>
      #{data_dir =>
            %s,
        name => quorum_queues,
        wal_data_dir => %s,wal_garbage_collect => false},
  uid => <<"2F_A">>}."""


def made_at(place: str, mnesia: Path, system: str = "quorum") -> Path:
    file = mnesia / "posthouse@localhost" / system / "posthouse@localhost" / "2F_A" / "config"
    file.parent.mkdir(parents=True)
    file.write_text(CONFIG % (place, place))
    file.chmod(0o640)
    return file


@pytest.mark.parametrize("system", ["quorum", "coordination"])
@pytest.mark.parametrize("old", ['"/old/place"', '"/a \\"quoted\\" one"', "[47,111,\n 252]"])
def test_a_queue_learns_its_new_place(tmp_path: Path, system: str, old: str) -> None:
    file = made_at(old, tmp_path, system)
    here = f'"{file.parent.parent}"'
    assert follow(tmp_path) == 1
    assert file.read_text() == CONFIG % (here, here)
    assert file.stat().st_mode & 0o777 == 0o640
    assert [one.name for one in file.parent.iterdir()] == ["config"]


def test_a_queue_that_knows_is_left_alone(tmp_path: Path) -> None:
    file = made_at("x", tmp_path)
    file.write_text(CONFIG % ((f'"{file.parent.parent}"',) * 2))
    before = file.stat()
    assert follow(tmp_path) == 0
    assert file.stat().st_mtime_ns == before.st_mtime_ns


def test_a_place_with_other_letters_is_written_in_numbers(tmp_path: Path) -> None:
    file = made_at('"/old"', tmp_path / "Häuser")
    follow(tmp_path / "Häuser")
    numbers = ",".join(str(ord(letter)) for letter in str(file.parent.parent))
    assert f"data_dir =>\n            [{numbers}]," in file.read_text()


def test_there_may_be_no_queues(tmp_path: Path) -> None:
    assert follow(tmp_path / "nothing") == 0
