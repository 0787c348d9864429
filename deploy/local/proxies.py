"""HAProxy and nginx for the test of what docs/operations.md says about them: Debian's, unpacked."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

from deploy.local.debian import Apt
from deploy.local.errors import Failure
from deploy.local.files import write
from deploy.local.instance import Instance, plain_environment

PROGRAMS = {"haproxy": "-v", "nginx": "-v"}
"""Each with what makes it say its version and end."""
FAMILY = "lib"  # what they need beside libraries is their packages' configuration


def variable(name: str) -> str:
    """Where a test finds a program."""
    return f"POSTHOUSE_TEST_{name.upper()}"


def ensure(instance: Instance, apt: Apt) -> str:
    """Have both to start; answers in a word where they came from."""
    place = _place(instance)
    if all(_runs(place, name) for name in PROGRAMS):
        return "ready"
    if not apt.present():
        return "the machine's own" if environment(instance) else "none: there is no apt-get"
    new = place.with_name("proxies.new")
    shutil.rmtree(new, ignore_errors=True)
    count = apt.unpack_missing(tuple(PROGRAMS), FAMILY, new)
    shutil.rmtree(place, ignore_errors=True)
    new.rename(place)
    for name in PROGRAMS:
        _write_start(place, name)
        if not _runs(place, name):
            raise Failure(f"Debian's {name} does not run here.", instance.logs / "apt.log")
    return f"{count} packages unpacked"


def environment(instance: Instance) -> dict[str, str]:
    """How a test finds them; without those that are missing, and the test says so."""
    place = _place(instance)
    found = {name: place / name if _runs(place, name) else shutil.which(name) for name in PROGRAMS}
    return {variable(name): str(program) for name, program in found.items() if program}


def _place(instance: Instance) -> Path:
    return instance.servers / "proxies"


def _write_start(place: Path, name: str) -> None:
    libraries = ":".join(str(path) for path in sorted(place.glob("**/*-linux-gnu*")) if path.is_dir())
    lines = [
        "#!/bin/sh",
        f"export LD_LIBRARY_PATH={shlex.quote(libraries)}",
        f'exec {shlex.quote(str(place / "usr/sbin" / name))} "$@"',
    ]
    write(place / name, "\n".join(lines) + "\n", 0o755)


def _runs(place: Path, name: str) -> bool:
    try:
        command = [str(place / name), PROGRAMS[name]]
        return (
            subprocess.run(command, capture_output=True, env=plain_environment(), check=False).returncode == 0
        )
    except OSError:
        return False
