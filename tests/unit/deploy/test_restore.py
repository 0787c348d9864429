"""What a restore refuses before it touches anything, and how it joins two settings files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deploy.archive import FORMAT, opened, written
from deploy.identity import fingerprint
from deploy.local.console import Console
from deploy.local.errors import Failure
from deploy.local.instance import ROOT, Instance
from deploy.local.restore import restore
from deploy.local.settings import load, read_file

KEY, OTHER = "a" * 43, "b" * 43
MANIFEST: dict[str, Any] = {
    "taken_at": "2026-11-20T12:00:00Z",
    "commit": "0123456789ab",
    "postgres": "18.1",
    "tables": {"auth.account": {"rows": 2, "sum": "1"}},
    "roles": [],
    "migrations": [],
    "waiting": {"dead.ingest": 3},
    "key": True,
    "key_fingerprint": fingerprint(KEY),
}


def made(place: Path, settings: str = f"POSTHOUSE_SECRET_KEY={KEY}\n", **more: Any) -> Path:
    with written(place / "kept") as archive:
        archive.add("posthouse.env", settings.encode())
        archive.end(MANIFEST | more)
    return place / "kept"


def instance(place: Path, **environment: str) -> Instance:
    return Instance(load(place, {"POSTHOUSE_LOCAL": str(place / "own"), **environment}))


def refusal(one: Instance, file: Path, *, instead: bool = False) -> str:
    with pytest.raises(Failure) as refused:
        restore(one, file, Console(), instead=instead, look_only=False)
    assert not one.restoring.exists()
    return refused.value.reason


def test_what_a_file_is_can_be_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert restore(instance(tmp_path), made(tmp_path), Console(), instead=False, look_only=True) == 0
    said = capsys.readouterr().out
    assert "as of 2026-11-20T12:00:00Z, commit 0123456789ab, PostgreSQL 18.1" in said
    assert "2 rows in 1 tables; the secret key is in it" in said
    assert "not contained: messages that waited in queues: 3 in dead.ingest" in said
    assert not (tmp_path / "own").exists()


def test_a_file_of_a_later_form_is_refused(tmp_path: Path) -> None:
    file = made(tmp_path)
    with opened(file) as archive:
        assert archive.format == FORMAT
    assert "a newer version" in refusal(instance(tmp_path), made(tmp_path, format=FORMAT + 1))


@pytest.mark.parametrize(
    "migration", [["ingest", "0999_later.sql", "x"], ["ingest", "shared/0001_inbox.sql", "changed"]]
)
def test_a_file_with_a_migration_that_is_not_here_is_refused(tmp_path: Path, migration: list[str]) -> None:
    said = refusal(instance(tmp_path), made(tmp_path, migrations=[migration]))
    assert f"migration {migration[1]} of ingest. Update this checkout first." in said


@pytest.mark.parametrize("content", [b"", b"\x1f\x8bnot a tar" * 100])
def test_a_file_that_is_no_backup_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "kept").write_bytes(content)
    assert "is not a backup that can be used" in refusal(instance(tmp_path), tmp_path / "kept")


def test_a_file_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    assert "No such file" in refusal(instance(tmp_path), tmp_path / "nothing")


@pytest.mark.parametrize("name", ["postgres", "rabbitmq", "redis", "key-fingerprint"])
def test_data_is_never_mixed(tmp_path: Path, name: str) -> None:
    (tmp_path / "own" / "data" / name).mkdir(parents=True)
    assert "There is data in" in refusal(instance(tmp_path), made(tmp_path))


def test_without_its_key_a_backup_is_refused(tmp_path: Path) -> None:
    file = made(tmp_path, settings="")
    assert "here it is not set" in refusal(instance(tmp_path), file)
    assert "here it is another one" in refusal(instance(tmp_path, POSTHOUSE_SECRET_KEY=OTHER), file)


def test_a_key_that_is_here_already_is_not_thrown_away(tmp_path: Path) -> None:
    file = made(tmp_path)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "posthouse.env").write_text(f"POSTHOUSE_SECRET_KEY={OTHER}\n")
    assert "take it away from there, or use --replace" in refusal(instance(tmp_path), file)
    given = refusal(instance(tmp_path, POSTHOUSE_SECRET_KEY=OTHER), file, instead=True)
    assert "in the environment is another one" in given


def test_settings_of_this_machine_stay_and_those_of_the_other_are_remarks(tmp_path: Path) -> None:
    from deploy.local.restore import _write_settings

    file = tmp_path / "posthouse.env"
    file.write_text(f"# mine\nPOSTHOUSE_LOG_DAYS=3\nPOSTHOUSE_PORT=81\nPOSTHOUSE_SECRET_KEY={OTHER}\n")
    kept = {"POSTHOUSE_PORT": "9000", "POSTHOUSE_DATA": "/there", "POSTHOUSE_SIGN_UP": "open"}
    _write_settings(file, kept | {"POSTHOUSE_LOG_DAYS": "9"}, KEY, "now", Console())
    assert read_file(file) == {
        "POSTHOUSE_LOG_DAYS": "3",
        "POSTHOUSE_PORT": "81",
        "POSTHOUSE_SIGN_UP": "open",
        "POSTHOUSE_SECRET_KEY": KEY,
    }
    assert "# POSTHOUSE_DATA=/there" in file.read_text()
    assert OTHER in (tmp_path / "posthouse.env.before-now").read_text()
    assert file.stat().st_mode & 0o777 == 0o600


def test_an_interrupted_restore_does_not_become_an_empty_start(tmp_path: Path) -> None:
    from deploy.local.up import checked_key

    one = replace(instance(tmp_path), root=ROOT)
    one.restoring.mkdir(parents=True)
    with pytest.raises(Failure, match="A restore was interrupted"):
        checked_key(one)
    (one.data / "postgres").mkdir(parents=True)
    assert checked_key(one)
