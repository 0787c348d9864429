"""`./posthouse prometheus`: a configuration with the addresses of what runs; Debian's programs for tests."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from deploy.local.debian import Apt
from deploy.local.errors import Failure
from deploy.local.files import write
from deploy.local.instance import Instance, plain_environment
from deploy.local.services import service_names

PROGRAMS = ("prometheus", "promtool")
FILES = ("prometheus.yml", "alerts.yml")


def configure(instance: Instance, directory: Path) -> list[str]:
    """Write the configuration into a directory; answers what to say. The instance has to run."""
    programs = instance.read_state().get("programs", {})
    ours = _processes(instance, programs)
    if not ours:
        raise Failure("Posthouse is not running: ./posthouse up first, so that its addresses are known.")
    for name in FILES:
        write(directory / name, (instance.root / "deploy/prometheus" / name).read_text(), 0o644)
    _write_targets(directory / "targets/posthouse.json", ours)
    broker = _broker(instance) if "rabbitmq" in programs else []
    _write_targets(directory / "targets/rabbitmq.json", broker)
    lines = [f"{len(ours)} processes{' and RabbitMQ' if broker else ''}: {directory}/prometheus.yml"]
    if not broker:
        lines.append(f"RabbitMQ is not ours: put its Prometheus port into {directory}/targets/rabbitmq.json")
    lines.append(
        f"prometheus --config.file={directory}/prometheus.yml --storage.tsdb.path={directory}/data "
        "--web.listen-address=127.0.0.1:9090"
    )
    return lines


def _processes(instance: Instance, programs: dict[str, Any]) -> list[dict[str, Any]]:
    """Each process of ours at its own port, by service and by name of the process."""
    services = service_names(instance)
    found = []
    for name, facts in programs.items():
        service = next((one for one in services if name == one or name.startswith(f"{one}-")), None)
        if service is not None:
            place = urlsplit(facts["probes"][0]).netloc
            found.append({"targets": [place], "labels": {"service": service, "process": name}})
    return found


def _broker(instance: Instance) -> list[dict[str, Any]]:
    ports = json.loads((instance.run / "ports.json").read_text())
    labels = {"service": "rabbitmq", "process": "rabbitmq"}
    return [{"targets": [f"127.0.0.1:{ports['prometheus']}"], "labels": labels}]


def _write_targets(file: Path, targets: list[dict[str, Any]]) -> None:
    write(file, json.dumps(targets, indent=1) + "\n", 0o644)


# -- for the tests: Debian's package, unpacked ------------------------------------------------------------


def variable(name: str) -> str:
    """Where a test finds a program."""
    return f"POSTHOUSE_TEST_{name.upper()}"


def ensure(instance: Instance, apt: Apt) -> str:
    """Have both to start; answers in a word where they came from."""
    place = _place(instance)
    if all(_runs(place / "usr/bin" / name) for name in PROGRAMS):
        return "ready"
    if not apt.present():
        return "the machine's own" if environment(instance) else "none: there is no apt-get"
    new = place.with_name("prometheus.new")
    shutil.rmtree(new, ignore_errors=True)
    # Libraries of its pages aside it needs nothing: it is one Go program.
    apt.unpack("prometheus", "prometheus$", new)
    shutil.rmtree(place, ignore_errors=True)
    new.rename(place)
    for name in PROGRAMS:
        if not _runs(place / "usr/bin" / name):
            raise Failure(f"Debian's {name} does not run here.", instance.logs / "apt.log")
    return "unpacked"


def environment(instance: Instance) -> dict[str, str]:
    """How a test finds them; without those that are missing, and the test says so."""
    place = _place(instance) / "usr/bin"
    found = {name: place / name if _runs(place / name) else shutil.which(name) for name in PROGRAMS}
    return {variable(name): str(program) for name, program in found.items() if program}


def _place(instance: Instance) -> Path:
    return instance.servers / "prometheus"


def _runs(program: Path) -> bool:
    try:
        return (
            subprocess.run(
                [program, "--version"], capture_output=True, env=plain_environment(), check=False
            ).returncode
            == 0
        )
    except OSError:
        return False
