"""The browser of the tests is found, fetched or missed in words."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from deploy.local import chromium
from deploy.local.debian import Apt
from deploy.local.errors import Failure
from deploy.local.instance import Instance
from deploy.local.settings import load


class Archive(Apt):
    """Unpacks a browser that says how it was started, or knows none."""

    def __init__(self, *, knows: bool = True) -> None:
        super().__init__(Path(), Path())
        self.knows = knows
        self.asked: list[str] = []

    @staticmethod
    def present() -> bool:
        return True

    def unpack_missing(self, packages: Sequence[str], family: str, into: Path) -> int:
        self.asked += packages
        if not self.knows:
            raise Failure("apt knows no package chromium-headless-shell.")
        program = into / chromium.PROGRAM
        program.parent.mkdir(parents=True)
        program.write_text('#!/bin/sh\necho "$LD_LIBRARY_PATH" "$FONTCONFIG_FILE" "$@"\n')
        program.chmod(0o755)
        return 56


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Instance:
    monkeypatch.delenv(chromium.NAME, raising=False)
    root = tmp_path / "a checkout"
    instance = Instance(load(root, {}), root)
    instance.make_directories()
    return instance


def test_it_starts_with_libraries_and_fonts_of_its_own(instance: Instance) -> None:
    apt = Archive()
    assert chromium.ensure(instance, apt) == "56 packages unpacked"
    assert "chromium-headless-shell" in apt.asked
    start = chromium.environment(instance)[chromium.NAME]
    said = subprocess.run([start, "--headless", "a b"], capture_output=True, text=True, check=True).stdout
    place = instance.servers / "chromium"
    assert f"{place}/usr/lib/" in said
    assert said.endswith(f"{place}/fonts.conf --headless a b\n")
    assert f"<dir>{place}/usr/share/fonts</dir>" in (place / "fonts.conf").read_text()


def test_it_is_fetched_once(instance: Instance) -> None:
    chromium.ensure(instance, Archive())
    second = Archive()
    assert chromium.ensure(instance, second) == "ready"
    assert second.asked == []


def test_an_archive_without_it_stops_nothing_and_says_what_to_set(instance: Instance) -> None:
    words = chromium.ensure(instance, Archive(knows=False))
    assert words.startswith("none: apt knows no package")
    assert chromium.NAME in words
    assert chromium.environment(instance) == {}


def test_one_that_is_named_is_taken(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(chromium.NAME, "/opt/browser")
    apt = Archive(knows=False)
    assert chromium.NAME in chromium.ensure(instance, apt)
    assert chromium.environment(instance) == {chromium.NAME: "/opt/browser"}
    assert apt.asked == []
