"""Only what is surely ours is looked at or signalled."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from deploy.local.processes import Process

WAITS = "import sys; print('up', flush=True); sys.stdin.read()"


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that has started and runs until its input is closed."""
    with subprocess.Popen(
        [sys.executable, "-c", WAITS], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"up\n"
        yield child
        child.kill()


def test_a_process_is_known_again_by_number_and_birth(child: subprocess.Popen[bytes]) -> None:
    process = Process.of(child.pid)

    assert process is not None
    assert process == Process.recorded([process.pid, process.born])
    assert process.memory() > 1024 * 1024


def test_a_later_process_with_the_same_number_is_not_signalled(child: subprocess.Popen[bytes]) -> None:
    earlier = Process(child.pid, born="another boot/42")

    earlier.signal(signal.SIGKILL)
    earlier.wait_or_kill(0)

    assert Process.recorded([child.pid, "another boot/42"]) is None
    assert child.poll() is None


def test_one_that_does_not_end_in_time_is_ended(child: subprocess.Popen[bytes]) -> None:
    process = Process.of(child.pid)
    assert process is not None

    process.wait_or_kill(0)

    assert child.wait() == -signal.SIGKILL


def test_there_is_no_process_where_none_is() -> None:
    assert Process.recorded(None) is None
    assert Process.of(2**22 + 1) is None
    assert Process.of(os.getpid()) is not None
