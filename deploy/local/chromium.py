"""Chromium for the tests of pages: Debian's, without a window, unpacked with its libraries and fonts."""

from __future__ import annotations

import os
import platform
import re
import shlex
import shutil
import subprocess
from pathlib import Path

from deploy.local.debian import Apt
from deploy.local.errors import Failure
from deploy.local.files import write
from deploy.local.instance import Instance, plain_environment

NAME = "POSTHOUSE_TEST_CHROMIUM"
# Inter is drawn like the system fonts people have; what it lacks comes from DejaVu.
PACKAGES = ("chromium-headless-shell", "chromium-common", "fonts-inter", "fonts-dejavu-core")
LIBRARIES = "lib"
PROGRAM = Path("usr/lib/chromium/chromium-headless-shell")
START = "run"
# Layers that look for mistakes of Vulkan programs, and what apt keeps for people.
USELESS = ("usr/lib/chromium/libVkLayer_khronos_validation.so", "usr/share/doc", "usr/share/man")
FONTS = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "urn:fontconfig:fonts.dtd">
<fontconfig>
  <dir>{place}/usr/share/fonts</dir>
  <cachedir>{place}/fontcache</cachedir>
  {aliases}
</fontconfig>
"""
ALIAS = '<alias binding="same"><family>{name}</family><prefer>{fonts}</prefer></alias>'
FAMILIES = {
    "system-ui": ("Inter", "DejaVu Sans"),
    "sans-serif": ("Inter", "DejaVu Sans"),
    "monospace": ("DejaVu Sans Mono",),
    "ui-monospace": ("DejaVu Sans Mono",),
    "serif": ("DejaVu Serif",),
}


def ensure(instance: Instance, apt: Apt) -> str:
    """Have a browser to start; answers in a word where it came from."""
    if os.environ.get(NAME):
        return f"the one of {NAME}"
    place = instance.servers / "chromium"
    if (place / START).exists() and not _lacks(place):
        _write_start(place)
        return "ready"
    if not apt.present():
        return f"none: no apt-get, and no {NAME}"
    new = place.with_name("chromium.new")
    shutil.rmtree(new, ignore_errors=True)
    try:
        count = apt.unpack_missing(PACKAGES, LIBRARIES, new)
    except Failure as failure:
        # Ubuntu has none: every other test is still worth running, and those of pages say what they miss.
        return f"none: {failure.reason} Or set {NAME}."
    for name in USELESS:
        _remove(new / name)
    shutil.rmtree(place, ignore_errors=True)
    new.rename(place)
    if lacks := _lacks(place):
        raise Failure(f"Chromium does not run here, it lacks {', '.join(lacks)}.")
    _write_start(place)
    return f"{count} packages unpacked"


def environment(instance: Instance) -> dict[str, str]:
    """How a test finds the browser; empty when there is none, and the test says so."""
    start = instance.servers / "chromium" / START
    found = os.environ.get(NAME) or (str(start) if start.exists() else "")
    return {NAME: found} if found else {}


def _write_start(place: Path) -> None:
    aliases = "\n  ".join(
        ALIAS.format(name=name, fonts="".join(f"<family>{font}</family>" for font in fonts))
        for name, fonts in FAMILIES.items()
    )
    write(place / "fonts.conf", FONTS.format(place=place, aliases=aliases), 0o644)
    lines = [
        "#!/bin/sh",
        f"export LD_LIBRARY_PATH={shlex.quote(_libraries(place))}",
        f"export FONTCONFIG_FILE={shlex.quote(str(place / 'fonts.conf'))}",
        f'exec {shlex.quote(str(place / PROGRAM))} "$@"',
    ]
    write(place / START, "\n".join(lines) + "\n", 0o755)


def _libraries(place: Path) -> str:
    triplet = f"{platform.machine()}-linux-gnu"
    found = [place / "usr/lib" / triplet, place / "lib" / triplet]
    # PulseAudio keeps a library in a place that its own program knows.
    found += sorted((place / "usr/lib" / triplet).glob("pulseaudio"))
    return ":".join(str(path) for path in found)


def _lacks(place: Path) -> list[str]:
    """Libraries that the loader does not find: the machine lost them, or never had them."""
    answer = subprocess.run(
        ["ldd", place / PROGRAM],
        capture_output=True,
        text=True,
        env=plain_environment() | {"LD_LIBRARY_PATH": _libraries(place)},
        check=False,
    )
    return re.findall(r"(\S+) => not found", answer.stdout)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
