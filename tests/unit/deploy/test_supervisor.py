"""Whatever ends is started again, with patience, until it is told to stop."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.local.console import Console
from deploy.local.errors import Failure
from deploy.local.instance import Instance
from deploy.local.processes import Process
from deploy.local.program import Program
from deploy.local.settings import load
from deploy.local.supervisor import Supervisor, put_aside

LISTENS = """
import socket, sys
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
socket.create_connection(("127.0.0.1", int(sys.argv[2]))).close()
while True:
    server.accept()[0].close()
"""
IGNORES_TERM = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + LISTENS
SLEEPS = (sys.executable, "-c", "import time; time.sleep(600)")
ALL: Sequence[Callable[[str], bool]] = (lambda name: True,)


class Yard:
    """A supervisor with programs that listen on a port."""

    def __init__(self, root: Path) -> None:
        self.instance = Instance(load(root, {}), root)
        self.instance.make_directories()
        self.supervisor = Supervisor(self.instance, Console())
        self.starts: asyncio.Queue[None] = asyncio.Queue()
        """One for each time a program has begun to listen."""
        self._hears: asyncio.Server | None = None

    async def __aenter__(self) -> Yard:
        self._hears = await asyncio.start_server(self._started, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.supervisor.stop(ALL)
        if self._hears:
            self._hears.close()

    async def _started(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.starts.put_nowait(None)
        writer.close()

    def program(self, name: str, port: int, code: str = LISTENS, stop_seconds: float = 10.0) -> Program:
        assert self._hears is not None
        report_to = self._hears.sockets[0].getsockname()[1]
        return Program(
            name=name,
            command=(sys.executable, "-c", code, str(port), str(report_to)),
            env=dict(os.environ),
            log=self.log(name),
            probes=(f"tcp://127.0.0.1:{port}",),
            stop_seconds=stop_seconds,
        )

    def log(self, name: str) -> Path:
        return self.instance.logs / f"{name}.log"

    def pid(self, name: str) -> int:
        return int((self.instance.run / f"{name}.pid").read_text())


@pytest.fixture
async def yard(tmp_path: Path) -> AsyncIterator[Yard]:
    async with Yard(tmp_path) as yard:
        yield yard


async def test_what_ends_is_started_again_and_says_so(
    yard: Yard, unused_tcp_port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    await yard.supervisor.start([yard.program("one", unused_tcp_port)], 20)
    await yard.starts.get()
    first = yard.pid("one")

    os.kill(first, signal.SIGKILL)
    await yard.starts.get()

    assert yard.pid("one") != first
    assert "one ended (SIGKILL) and is started again in 0.2 s" in capsys.readouterr().out


async def test_the_state_tells_other_commands_what_runs(yard: Yard, unused_tcp_port: int) -> None:
    await yard.supervisor.start([yard.program("one", unused_tcp_port)], 20)

    state = json.loads(yard.instance.state.read_text())

    assert state["supervisor"][0] == os.getpid()
    process = Process.recorded(state["programs"]["one"]["process"])
    assert process is not None
    assert process.pid == yard.pid("one")


async def test_what_all_stand_on_is_asked_only_when_one_of_them_is_not_ready(yard: Yard) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_server(("127.0.0.1", 0)) as service:
        named = (("server", server), ("service", service))
        programs = [
            replace(yard.program(name, listening.getsockname()[1]), command=SLEEPS)
            for name, listening in named
        ]
        await yard.supervisor.start(programs, 20)
        server.close()
        assert await yard.supervisor.unready() == {"server"}
        assert await yard.supervisor.unready(foundation={"server"}) == set()
        service.close()
        assert await yard.supervisor.unready(foundation={"server"}) == {"server", "service"}


async def test_stopping_leaves_nothing(yard: Yard, unused_tcp_port: int) -> None:
    await yard.supervisor.start([yard.program("one", unused_tcp_port)], 20)
    process = Process.of(yard.pid("one"))

    await yard.supervisor.stop(ALL)

    assert process is not None
    assert not process.alive()
    assert not (yard.instance.run / "one.pid").exists()


async def test_one_that_does_not_listen_to_a_signal_is_killed(yard: Yard, unused_tcp_port: int) -> None:
    await yard.supervisor.start([yard.program("one", unused_tcp_port, IGNORES_TERM, stop_seconds=0.1)], 20)
    process = Process.of(yard.pid("one"))

    await yard.supervisor.stop(ALL)

    assert process is not None
    assert not process.alive()


async def test_a_program_that_cannot_start_fails_with_its_last_words(
    yard: Yard, unused_tcp_port: int
) -> None:
    program = yard.program("one", unused_tcp_port, "raise SystemExit('no moon tonight')")

    with pytest.raises(Failure) as failure:
        await yard.supervisor.start([program], 20)

    assert "one: one ended 4 times before it was ready" in failure.value.reason
    assert "no moon tonight" in failure.value.text()


async def test_groups_are_stopped_one_after_the_other(
    yard: Yard, unused_tcp_port_factory: Callable[[], int]
) -> None:
    farewell = "import atexit, signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit())\n"
    order = yard.instance.local / "order"
    programs = [
        yard.program(
            name,
            unused_tcp_port_factory(),
            f"{farewell}atexit.register(lambda: open({str(order)!r}, 'a').write('{name} '))\n{LISTENS}",
        )
        for name in ("server", "door")
    ]
    await yard.supervisor.start(programs, 20)

    await yard.supervisor.stop([lambda name: name == "door", lambda name: True])

    assert order.read_text() == "door server "


def test_a_large_log_is_put_aside_while_it_is_written(tmp_path: Path) -> None:
    log = tmp_path / "one.log"
    with log.open("a") as writer:
        print("first", file=writer, flush=True)
        put_aside(log, largest=3)
        print("second", file=writer, flush=True)

    assert (tmp_path / "one.log.1").read_text() == "first\n"
    assert log.read_text() == "second\n"
