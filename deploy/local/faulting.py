"""`./posthouse faults`: everything is broken under load, on instances of their own, and put away."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from deploy.local import rabbitmq4
from deploy.local import settings as configuration
from deploy.local.benching import run_alone, stop_instance
from deploy.local.console import Console
from deploy.local.errors import Failure
from deploy.local.files import try_lock
from deploy.local.instance import Instance
from deploy.local.servers import install

PLACE = Path(".local/faults")
RESULTS_ON_4 = Path("tests/faults/results/rabbitmq4.json")
LOGS = "logs"


def faults(instance: Instance, arguments: Sequence[str]) -> int:
    """Run `tests.faults` in the environment for tests; what a row leaves behind is stopped and removed.

    The logs of rows that did not pass are kept in `.local/faults/logs`.
    """
    console = Console()
    place = instance.root / PLACE
    lock = try_lock(place / "lock")
    if lock is None:
        raise Failure("The faults run already in this checkout.")
    with lock:
        _put_away(instance, place, console)
        install(instance, console, dev=True)
        shutil.rmtree(place / LOGS, ignore_errors=True)
        os.environ["FAULTS_PLACE"] = str(place)
        if rabbitmq4.chosen(instance.settings):
            os.environ.setdefault("FAULTS_RESULTS", str(instance.root / RESULTS_ON_4))
        try:
            return run_alone(
                [instance.python, "-m", "tests.faults", *arguments],
                instance.root,
                rabbitmq4.chosen(instance.settings),
            )
        finally:
            _put_away(instance, place, console)


def _put_away(instance: Instance, place: Path, console: Console) -> None:
    """Whatever happened to a run, nothing it has started is left running: a directory is an instance."""
    for directory in place.iterdir():
        if directory.is_dir() and directory.name != LOGS:
            slot = Instance(configuration.load(instance.root, {"POSTHOUSE_LOCAL": str(directory)}))
            stop_instance(slot, console)
            shutil.rmtree(slot.local, ignore_errors=True)
