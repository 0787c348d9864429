"""A backup file is whole or refused."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.archive import BadArchive, opened, written


def make(path: Path) -> None:
    with written(path) as archive:
        archive.stream("database.dump", [b"a" * 700, b"", b"b"])
        archive.add("posthouse.env", b"POSTHOUSE_X=1\n")
        archive.end({"commit": "abc"})


def test_what_was_written_is_read(tmp_path: Path) -> None:
    make(tmp_path / "one")
    assert (tmp_path / "one").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["one"]
    with opened(tmp_path / "one") as archive:
        archive.check()
        assert (archive.format, archive.manifest["commit"]) == (1, "abc")
        assert archive.read("database.dump") == b"a" * 700 + b"b"
        assert archive.files["database.dump"]["bytes"] == 701
        assert archive.has("posthouse.env")
        assert not archive.has("broker.json")


def test_it_is_a_tar_that_anybody_can_read(tmp_path: Path) -> None:
    make(tmp_path / "one")
    with tarfile.open(tmp_path / "one") as tar:
        assert tar.getnames() == ["database.dump", "posthouse.env", "manifest.json"]


def test_the_size_of_a_member_may_be_beyond_8_gigabytes() -> None:
    from deploy.archive import _header

    header = _header("database.dump", 1 << 40)
    assert len(header) == 512
    assert tarfile.TarInfo.frombuf(header, "utf-8", "strict").size == 1 << 40


def interrupted() -> Iterator[bytes]:
    yield b"x"
    raise KeyboardInterrupt


def test_an_interrupted_backup_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), written(tmp_path / "one") as archive:
        archive.stream("database.dump", interrupted())
    assert list(tmp_path.iterdir()) == []


def test_the_earlier_backup_stays_when_the_next_one_fails(tmp_path: Path) -> None:
    make(tmp_path / "one")
    before = (tmp_path / "one").read_bytes()
    with pytest.raises(ValueError, match="no"), written(tmp_path / "one"):
        raise ValueError("no")
    assert (tmp_path / "one").read_bytes() == before


def test_damage_is_found_wherever_it_is(tmp_path: Path) -> None:
    make(tmp_path / "one")
    whole = (tmp_path / "one").read_bytes()
    for place in range(0, len(whole), 41):
        damaged = bytearray(whole)
        damaged[place] ^= 0x20
        (tmp_path / "bad").write_bytes(damaged)
        _damaged_is_refused_or_the_same(tmp_path / "bad", tmp_path / "one")


def _damaged_is_refused_or_the_same(bad: Path, good: Path) -> None:
    """Padding and what a header says beside name and size may differ; what is read may not."""
    with opened(good) as archive:
        expected = {name: archive.read(name) for name in archive.files}
    try:
        with opened(bad) as archive:
            archive.check()
            found = {name: archive.read(name) for name in archive.files}
    except BadArchive:
        return
    assert found == expected


@pytest.mark.parametrize("size", [0, 10, 512, 1000, 2000])
def test_a_file_that_was_cut_is_refused(tmp_path: Path, size: int) -> None:
    make(tmp_path / "one")
    (tmp_path / "cut").write_bytes((tmp_path / "one").read_bytes()[:size])
    with pytest.raises(BadArchive), opened(tmp_path / "cut") as archive:
        archive.check()


@pytest.mark.parametrize("text", ["", "[]", "{}", "nonsense"])
def test_a_tar_that_is_no_backup_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with tarfile.open(tmp_path / "one", "w") as tar:
        tar.add(tmp_path / "manifest.json", "manifest.json")
    with pytest.raises(BadArchive), opened(tmp_path / "one"):
        pass
