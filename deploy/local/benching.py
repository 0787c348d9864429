"""`./posthouse bench`: an instance of its own, measured beside others, and nothing left running."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType, MappingProxyType

from deploy.local import settings as configuration
from deploy.local.console import Console
from deploy.local.errors import Failure
from deploy.local.files import try_lock
from deploy.local.instance import Instance, plain_environment
from deploy.local.servers import install
from deploy.local.status import down, supervisor_of

PLACE = Path(".local/bench")


def bench(instance: Instance, arguments: Sequence[str]) -> int:
    """Run `benchmarks` in the environment for tests; its data of an earlier run is removed before.

    Whatever happens to it, nothing it has started is left running.
    """
    console = Console()
    place = instance.root / PLACE
    lock = try_lock(place / "lock")
    if lock is None:
        raise Failure("A bench runs already in this checkout.")
    with lock:
        slot = _slot(instance, place)
        stop_instance(slot, console)
        install(slot, console, dev=True)
        shutil.rmtree(slot.data, ignore_errors=True)
        try:
            return run_alone([instance.python, "-m", "benchmarks", *arguments], instance.root)
        finally:
            stop_instance(slot, console)
            shutil.rmtree(slot.data, ignore_errors=True)


def _slot(instance: Instance, place: Path) -> Instance:
    """Where the instance lies that is measured; settings of the checkout are not taken over."""
    return Instance(configuration.load(instance.root, {"POSTHOUSE_LOCAL": str(place / "instance")}))


def stop_instance(slot: Instance, console: Console) -> None:
    """Stop it when it runs, and what a supervisor that was killed left behind."""
    if supervisor_of(slot) or slot.read_state().get("programs"):
        down(slot, console)


def run_alone(
    command: Sequence[str | Path], root: Path, more: Mapping[str, str] = MappingProxyType({})
) -> int:
    """Run it in a group of processes of its own with `more` in its environment, pass signals on to it, end
    what is left of the group.
    """
    # In a session of its own, so that Ctrl-C reaches only us, and it stops what it started in its turn.
    child = subprocess.Popen(command, env={**plain_environment(), **more}, cwd=root, start_new_session=True)

    def pass_on(number: int, _: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, pass_on)
    # Not reaped yet, it keeps its number, and with it that of the group.
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    return child.wait()
