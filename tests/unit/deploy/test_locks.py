"""What is installed is what was locked, from whatever index a machine uses."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
LOCKS = ("requirements.lock", "requirements-dev.lock")


def pins(name: str) -> dict[str, str]:
    """Each requirement with its hashes, by what stands before them."""
    logical = (ROOT / name).read_text().replace("\\\n", " ").splitlines()
    return {line.split()[0]: " ".join(sorted(re.findall(r"sha256:\w+", line))) for line in logical if line}


def test_the_lock_for_tests_holds_all_of_the_other() -> None:
    assert pins("requirements.lock").items() <= pins("requirements-dev.lock").items()


@pytest.mark.parametrize("name", LOCKS)
def test_every_package_has_a_hash_and_no_lock_has_an_address(name: str) -> None:
    assert all(pins(name).values())
    assert not re.search(r"://|@ |file:|--index|--find-links", (ROOT / name).read_text())


def test_every_dependency_that_is_declared_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    runtime = [*project["dependencies"], *project["optional-dependencies"]["embedded"]]
    for declared, lock in ((runtime, LOCKS[0]), (project["optional-dependencies"]["dev"], LOCKS[1])):
        names = {re.split(r"[\[<>=;]", one)[0] for one in declared}
        assert names <= {pin.split("==")[0] for pin in pins(lock)}
