"""Where everything of one instance lies."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.local.errors import Failure, tail
from deploy.local.settings import Settings

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Instance:
    """The directories of a running Posthouse; programs are shared by all instances of a checkout."""

    settings: Settings
    root: Path = ROOT

    @property
    def local(self) -> Path:
        """Everything that belongs to this instance only."""
        return self.settings.local

    @property
    def run(self) -> Path:
        """Process ids, ports and the state of the supervisor."""
        return self.local / "run"

    @property
    def logs(self) -> Path:
        """One log for each process."""
        return self.local / "logs"

    @property
    def data(self) -> Path:
        """What the servers keep; nothing here ever deletes it."""
        named = self.settings.get("POSTHOUSE_DATA")
        return (self.root / Path(named).expanduser()).resolve() if named else self.local / "data"

    @property
    def restoring(self) -> Path:
        """Beside the data, while a backup is restored."""
        return self.data.with_name(f"{self.data.name}.restoring")

    def holds_data(self) -> bool:
        """Whether a server or an earlier start left anything there."""
        names = ("postgres", "rabbitmq", "redis", "key-fingerprint")
        return any((self.data / name).exists() for name in names)

    @property
    def addresses(self) -> Path:
        """Administrators' addresses, for scripts."""
        return self.local / "addresses.env"

    @property
    def state(self) -> Path:
        """What the supervisor has running, for `status` and `down`."""
        return self.run / "processes.json"

    @property
    def servers(self) -> Path:
        """Unpacked server programs of this checkout."""
        return self.root / ".local" / "servers"

    @property
    def venv(self) -> Path:
        """The Python environment of this checkout."""
        return self.root / ".venv"

    @property
    def python(self) -> Path:
        """The interpreter that has the libraries."""
        return self.venv / "bin" / "python"

    def make_directories(self) -> None:
        """Make what is missing; only its owner may look into the instance."""
        for directory in (self.local, self.run, self.logs):
            directory.mkdir(parents=True, exist_ok=True)
        for directory in (self.run, self.logs):
            directory.chmod(0o700)

    def read_state(self) -> dict[str, Any]:
        """The state the last supervisor wrote; empty when there is none."""
        try:
            state = json.loads(self.state.read_text())
        except (OSError, ValueError):
            return {}
        return state if isinstance(state, dict) else {}


def run_logged(
    command: Sequence[str | Path],
    log: Path,
    what: str,
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> None:
    """Run a command to its end, its output into the log; raises Failure with the log when it fails."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        file.write(f"$ {' '.join(str(part) for part in command)}\n")
        file.flush()
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=env, cwd=cwd, check=False
            )
        except OSError as error:
            raise Failure(f"{what} ({error}).") from None
    if done.returncode != 0:
        words = "".join(tail(log, 1)) or f"exit code {done.returncode}"
        raise Failure(f"{what}: {words}", log)


def plain_environment() -> dict[str, str]:
    """The environment without settings of ours and without what would send an installation elsewhere."""
    unwanted = {"PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PYTHONHOME", "VIRTUAL_ENV"}
    return {k: v for k, v in os.environ.items() if not k.startswith("POSTHOUSE_") and k not in unwanted}
