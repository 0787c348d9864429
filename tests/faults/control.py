"""rabbitmqctl of an instance with a broker of its own."""

from __future__ import annotations

from pathlib import Path

from deploy.local import settings as configuration
from deploy.local.instance import ROOT, Instance
from deploy.local.ports import Ports
from deploy.local.rabbitmq import find
from deploy.local.servers import Servers


class KnownPorts(Ports):
    """Those of an instance that runs: in use, and not to be chosen anew."""

    def get(self, name: str, fixed: str = "", first: int | None = None, host: str = "127.0.0.1") -> int:
        """The kept one."""
        return self._kept[name]


def control(directory: Path, *arguments: str) -> str:
    """What it says; fails when it does."""
    instance = Instance(configuration.load(ROOT, {"POSTHOUSE_LOCAL": str(directory)}))
    servers = Servers(instance, KnownPorts(instance.run / "ports.json"), key=_key(directory))
    software = find(instance)
    assert software is not None, "no RabbitMQ"
    assert servers.rabbit is not None, "no broker of its own"
    program = software.server.with_name("rabbitmqctl")
    done = servers.rabbit._control(program, software, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _key(directory: Path) -> str:
    lines = (directory / "posthouse.env").read_text().splitlines()
    return next(line.partition("=")[2] for line in lines if line.startswith("POSTHOUSE_SECRET_KEY="))
