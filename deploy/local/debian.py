"""Packages of Debian and its relatives, unpacked into the checkout: no root, nothing installed."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

from deploy.local.errors import Failure
from deploy.local.files import write
from deploy.local.instance import run_logged

_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_TREE_ONLY = ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")


class Apt:
    """apt with lists and downloads of its own; signatures are checked as on the machine."""

    def __init__(self, home: Path, log: Path) -> None:
        self._home = home
        self._log = log
        self._lists_ready = False
        self._lock = threading.Lock()

    @staticmethod
    def present() -> bool:
        """Whether this machine has it."""
        return bool(shutil.which("apt-get") and shutil.which("dpkg"))

    def unpack(self, package: str, family: str, into: Path) -> None:
        """Download a package, with those it needs whose names begin like the family, and unpack all."""
        with self._lock:
            self._update()
        self._fetch(package, self._needs(package, family), into)

    def unpack_missing(self, packages: Sequence[str], family: str, into: Path) -> int:
        """Unpack these packages, and those they need whose names begin like the family unless the machine
        has them; answers how many that were.
        """
        with self._lock:
            self._update()
        missing = self._missing(packages, family)
        self._fetch(packages[0], missing, into)
        return len(missing)

    def _fetch(self, name: str, packages: Sequence[str], into: Path) -> None:
        downloads = self._home / "downloads" / name
        shutil.rmtree(downloads, ignore_errors=True)
        downloads.mkdir(parents=True)
        run_logged(
            ["apt-get", *self._options(), "download", *packages],
            self._log,
            f"apt-get could not download {name}",
            cwd=downloads,
        )
        into.mkdir(parents=True, exist_ok=True)
        for archive in sorted(downloads.glob("*.deb")):
            run_logged(["dpkg", "-x", archive, into], self._log, f"{archive.name} could not be unpacked")
        shutil.rmtree(downloads)

    def _update(self) -> None:
        if self._lists_ready:
            return
        for directory in ("lists/partial", "cache/archives/partial"):
            (self._home / directory).mkdir(parents=True, exist_ok=True)
        # One source of several that cannot be reached is no failure yet: the download will tell.
        with self._log.open("a") as log:
            subprocess.run(
                ["apt-get", *self._options(), "update"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                check=False,
            )
        self._lists_ready = True

    def _needs(self, package: str, family: str) -> list[str]:
        lines = self._depends("--recurse", package)
        names = {line for line in lines if re.match(family, line)}
        if package not in names:
            raise self._unknown(package)
        return sorted(names)

    def _missing(self, packages: Sequence[str], family: str) -> list[str]:
        """A level of dependencies at a time: what the machine has is not looked behind."""
        here = self._here()
        wanted: set[str] = set()
        level = set(packages)
        while level:
            lines = self._depends(*sorted(level))
            if unknown := sorted(level & set(packages) - set(lines)):
                raise self._unknown(unknown[0])
            wanted |= level
            needs = {line.partition("Depends: ")[2].strip() for line in lines}
            level = {name for name in needs - here - wanted if re.match(family, name)}
        return sorted(wanted)

    def _depends(self, *arguments: str) -> list[str]:
        flags = [f"--no-{kind}" for kind in _TREE_ONLY]
        answer = subprocess.run(
            ["apt-cache", *self._options(), "depends", *flags, *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
        return answer.stdout.splitlines()

    def _unknown(self, package: str) -> Failure:
        return Failure(
            f"apt knows no package {package}: is there a network, and are Debian's sources set?", self._log
        )

    def _here(self) -> set[str]:
        """The packages of this machine that are unpacked and set up."""
        answer = subprocess.run(
            ["dpkg-query", "--show", "--showformat=${db:Status-Status} ${Package}\n"],
            capture_output=True,
            text=True,
            check=False,
        )
        rows = (line.split() for line in answer.stdout.splitlines())
        return {row[1] for row in rows if len(row) == 2 and row[0] == "installed"}

    def mirror(self) -> str:
        """Where this machine's apt has Debian itself from; empty on its relatives."""
        with self._lock:
            self._update()
        answer = subprocess.run(
            ["apt-get", *self._options(), "indextargets", "--format", "$(ORIGIN)|$(COMPONENT)|$(REPO_URI)"],
            capture_output=True,
            text=True,
            check=False,
        )
        rows = (line.split("|") for line in answer.stdout.splitlines())
        found = (row[2] for row in rows if row[:2] == ["Debian", "main"])
        return next((uri for uri in found if not re.search(r"-security/*$", uri)), "")

    def _options(self) -> list[str]:
        settings = self._settings()
        return [part for name, value in settings.items() for part in ("-o", f"{name}={value}")]

    def _settings(self) -> dict[str, str | Path]:
        return {
            "Dir::State::lists": self._home / "lists",
            "Dir::Cache": self._home / "cache",
            "Debug::NoLocking": "1",
            "APT::Sandbox::User": "",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
        }


class Release(Apt):
    """Another release of Debian, from the mirror this machine's apt has; nothing of it is installed."""

    def __init__(self, machine: Apt, name: str, home: Path, log: Path) -> None:
        super().__init__(home, log)
        self._machine = machine
        self._name = name

    def _update(self) -> None:
        if not self._lists_ready:
            self.say_sources()
        super()._update()

    def say_sources(self) -> None:
        """Write what apt is to read in place of the machine's."""
        mirror = self._machine.mirror()
        if not mirror:
            raise Failure(f"Debian's {self._name} is fetched from where apt has Debian: nowhere here.")
        signed = f"[signed-by={_KEYRING}] " if _KEYRING.exists() else ""
        write(self._home / "sources.list", f"deb {signed}{mirror} {self._name} main\n", 0o644)
        write(self._home / "status", "", 0o644)

    def _here(self) -> set[str]:
        return set()

    def _settings(self) -> dict[str, str | Path]:
        return super()._settings() | {
            "Dir::Etc::sourcelist": self._home / "sources.list",
            "Dir::Etc::sourceparts": "-",
            "Dir::State::status": self._home / "status",
        }
