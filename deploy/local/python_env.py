"""The Python environment of the checkout: made once, installed from a lock, each file checked by its hash."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from deploy.local.debian import Apt
from deploy.local.errors import Failure
from deploy.local.instance import Instance, plain_environment, run_logged

RUNTIME_LOCK = "requirements.lock"
DEV_LOCK = "requirements-dev.lock"


def ensure(instance: Instance, apt: Apt, *, dev: bool = False) -> str:
    """Make the environment what the lock says; answers in a word what was done."""
    wanted = _wanted(instance.root, dev)
    stamp = _stamp(instance)
    if stamp.items() >= wanted.items() and instance.python.exists():
        return "ready"
    if stamp.get("python") != wanted["python"] or not _works(instance.python):
        _make(instance)
    pip = _pip(instance, apt)
    lock = instance.root / (DEV_LOCK if dev else RUNTIME_LOCK)
    # fmt: off
    run_logged(
        [instance.python, pip, "install", "--no-deps", "--require-hashes", "--no-cache-dir", "--no-input",
         "--disable-pip-version-check", "--progress-bar", "off", "--requirement", lock],
        instance.logs / "install.log",
        f"pip could not install {lock.name}",
        env=plain_environment(),
    )
    # fmt: on
    _stamp_file(instance).write_text(json.dumps(wanted, indent=1) + "\n")
    return "installed"


def _wanted(root: Path, dev: bool) -> dict[str, str]:
    # What the dev lock holds includes all of the other, at the same versions (tests/unit/deploy).
    locks = [RUNTIME_LOCK, DEV_LOCK] if dev else [RUNTIME_LOCK]
    hashes = {name: hashlib.sha256((root / name).read_bytes()).hexdigest() for name in locks}
    return {"python": f"{platform.python_version()} {platform.machine()}", "place": str(root), **hashes}


def _stamp_file(instance: Instance) -> Path:
    return instance.venv / "posthouse-installed.json"


def _stamp(instance: Instance) -> dict[str, str]:
    try:
        return dict(json.loads(_stamp_file(instance).read_text()))
    except (OSError, ValueError):
        return {}


def _works(python: Path) -> bool:
    try:
        return subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def _make(instance: Instance) -> None:
    # Without pip: Debian's python3 comes without ensurepip, and pip runs from its wheel as well.
    run_logged(
        [sys.executable, "-m", "venv", "--without-pip", "--clear", instance.venv],
        instance.logs / "install.log",
        "Python could not make .venv",
        env=plain_environment(),
    )


def _pip(instance: Instance, apt: Apt) -> Path:
    """A pip that can be run from its wheel: Python's own, the machine's, or Debian's unpacked."""
    if wheel := _bundled_pip():
        return wheel / "pip"
    place = instance.servers / "pip"
    if not _newest(place):
        if not apt.present():
            raise Failure("Python has no pip here: install it, for example with `python3 -m ensurepip`.")
        try:
            apt.unpack("python3-pip-whl", "python3-pip-whl", place)
        except Failure as failure:
            raise Failure(f"{failure.reason} Or: apt-get install python3-venv", failure.log) from None
    if wheel := _newest(place):
        return wheel / "pip"
    raise Failure("Debian's python3-pip-whl holds no pip: apt-get install python3-venv")


def _bundled_pip() -> Path | None:
    places = [Path("/usr/share/python-wheels")]
    spec = importlib.util.find_spec("ensurepip")
    if spec and spec.origin:
        places.insert(0, Path(spec.origin).parent / "_bundled")
    return next((wheel for place in places if (wheel := _newest(place))), None)


def _newest(place: Path) -> Path | None:
    wheels = sorted(place.rglob("pip-*.whl"), key=lambda path: path.stat().st_mtime)
    return wheels[-1] if wheels else None


def find_in_packages(instance: Instance, pattern: str) -> Path | None:
    """A file of an installed package."""
    return next(instance.venv.glob(f"lib/python3*/site-packages/{pattern}"), None)


def find_program(*names: str, places: tuple[str, ...] = ()) -> Path | None:
    """A program of the machine, from the given places (patterns) first, then PATH."""
    for name in names:
        for place in places:
            found = sorted(Path("/").glob(f"{place.lstrip('/')}/{name}"))
            if found:
                return found[-1]
        if path := shutil.which(name):
            return Path(path)
    return None
