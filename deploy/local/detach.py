"""Starting a supervisor that stays when the command returns."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from deploy.local.console import READY, Console
from deploy.local.instance import Instance


def detach(instance: Instance, arguments: list[str], began: float) -> int:
    """Start the supervisor in a session of its own and pass on its words until it is ready or has failed."""
    reader, writer = os.pipe()
    command = [sys.executable, "-P", "-m", "deploy.local", "supervise"]
    with (instance.logs / "supervisor.log").open("ab") as log:
        child = subprocess.Popen(
            [*command, "--watcher", str(writer), "--began", str(began), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[writer],
            start_new_session=True,
            cwd=instance.root,
        )
    os.close(writer)
    try:
        return _relay(reader, child)
    except KeyboardInterrupt:
        child.send_signal(signal.SIGTERM)
        child.wait()
        return 130


def _relay(reader: int, child: subprocess.Popen[bytes]) -> int:
    console = Console()
    with os.fdopen(reader, errors="replace") as lines:
        for line in lines:
            if line.rstrip("\n") == READY:
                return 0
            console.line(line.rstrip("\n"))
    return child.wait() or 1
