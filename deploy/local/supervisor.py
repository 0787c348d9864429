"""Keeps programs running: starts them, starts again whatever ends, stops all in order."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy.local.console import Console
from deploy.local.errors import Failure
from deploy.local.files import write
from deploy.local.instance import Instance
from deploy.local.probe import why_not
from deploy.local.processes import Process
from deploy.local.program import Program

FIRST_DELAY, LONGEST_DELAY = 0.2, 5.0
STEADY_SECONDS = 5.0
"""A program that ran this long starts over with the first delay."""
TRIES_AT_START = 4


@dataclass
class Keeper:
    """One program that is kept running until it is told to stop."""

    program: Program
    changed: Callable[[], None]
    tell: Callable[[str], None]
    pid_file: Path
    running: Process | None = None
    started_at: float = 0.0
    ends: int = 0
    _child: asyncio.subprocess.Process | None = None
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; `wait_ready` tells when it can be used."""
        self._task = asyncio.create_task(self._keep(), name=self.program.name)

    async def wait_ready(self, seconds: float) -> None:
        """Return when every probe answers; raises Failure when that takes too long or it keeps ending."""
        name = self.program.name
        end = time.monotonic() + seconds
        while not await self.is_ready():
            if self._stopping.is_set():
                raise Failure(f"{name} was stopped before it was ready")
            if self.ends >= TRIES_AT_START:
                raise Failure(f"{name} ended {self.ends} times before it was ready", self.program.log)
            if time.monotonic() > end:
                raise Failure(
                    f"{name} was not ready after {seconds:.0f} s. {await self._why()}", self.program.log
                )
            await asyncio.sleep(0.05)

    async def is_ready(self) -> bool:
        """Whether it runs and every probe answers now."""
        return self.running is not None and not await self._why()

    async def _why(self) -> str:
        for probe in self.program.probes:
            if why := await asyncio.to_thread(why_not, probe):
                return why
        return ""

    async def stop(self) -> None:
        """Ask it to end; end it when it does not within its time."""
        self._stopping.set()
        child = self._child
        if child is not None and child.returncode is None:
            child.send_signal(self.program.stop_signal)
            try:
                await asyncio.wait_for(child.wait(), self.program.stop_seconds)
            except TimeoutError:
                self.tell(
                    f"{self.program.name} did not end within {self.program.stop_seconds:.0f} s and was killed"
                )
                _kill_group(child)
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    async def _keep(self) -> None:
        delay = FIRST_DELAY
        while not self._stopping.is_set():
            began = time.monotonic()
            code = await self._run_once()
            if self._stopping.is_set():
                return
            self.ends += 1
            if time.monotonic() - began > STEADY_SECONDS:
                delay = FIRST_DELAY
            self.tell(f"{self.program.name} ended ({_how(code)}) and is started again in {delay:.1f} s")
            self.changed()
            await self._pause(delay)
            delay = min(delay * 2, LONGEST_DELAY)

    async def _run_once(self) -> int:
        program = self.program
        await asyncio.to_thread(program.before)
        if self._stopping.is_set():
            return 0
        try:
            self._child = child = await _spawn(program)
        except OSError as error:
            self.tell(f"{program.name} cannot be started: {error}")
            return 127
        self.running = Process.of(child.pid)
        self.started_at = time.time()
        with contextlib.suppress(OSError):  # a full disk must not end the keeping
            write(self.pid_file, f"{child.pid}\n")
        self.changed()
        code = await child.wait()
        self.running = None
        self.pid_file.unlink(missing_ok=True)
        self.changed()
        return code

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)


async def _spawn(program: Program) -> asyncio.subprocess.Process:
    # In a session of its own, Ctrl-C at the terminal reaches only us, and we stop it in its turn.
    with program.log.open("ab") as log:
        return await asyncio.create_subprocess_exec(
            *program.command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=dict(program.env),
            cwd=program.cwd,
            start_new_session=True,
            pass_fds=program.fds,
            user=program.user,
            group=program.user,
            extra_groups=None if program.user is None else [],
        )


class Supervisor:
    """The programs of one instance; the only writer of process ids and of the state file."""

    def __init__(self, instance: Instance, console: Console) -> None:
        self._instance = instance
        self._console = console
        self._keepers: dict[str, Keeper] = {}
        self._told = False
        self.doors: list[socket.socket] = []
        """The listening sockets of all gateways."""
        self.facts: dict[str, Any] = {}
        """What `status` and a second `up` show beside the processes."""

    async def start(self, programs: Sequence[Program], seconds: float) -> None:
        """Start programs at the same time and wait until every one is ready, one line for each."""
        keepers = [self._add(program) for program in programs]
        waiting = [asyncio.create_task(self._ready(keeper, seconds)) for keeper in keepers]
        try:
            await asyncio.gather(*waiting)
        finally:
            for task in waiting:
                task.cancel()

    async def _ready(self, keeper: Keeper, seconds: float) -> None:
        with self._console.step(keeper.program.name, keeper.program.address):
            await keeper.wait_ready(seconds)

    def _add(self, program: Program) -> Keeper:
        keeper = Keeper(program, self.write_state, self.tell, self._instance.run / f"{program.name}.pid")
        self._keepers[program.name] = keeper
        keeper.start()
        return keeper

    async def stop(self, order: Sequence[Callable[[str], bool]]) -> None:
        """Stop group after group; a program belongs to the first group that takes its name."""
        for takes in order:
            group = [keeper for name, keeper in self._keepers.items() if takes(name)]
            await asyncio.gather(*(keeper.stop() for keeper in group))
            for keeper in group:
                del self._keepers[keeper.program.name]
            self.write_state()

    def write_state(self) -> None:
        """Tell other commands what runs."""
        me = Process.of(os.getpid())
        programs = {name: _described(keeper) for name, keeper in self._keepers.items()}
        state = {"supervisor": _numbers(me), "programs": programs, **self.facts}
        with contextlib.suppress(OSError):
            write(self._instance.state, json.dumps(state, indent=1) + "\n")

    def close_doors(self) -> None:
        """Our copies of them: the gateways close theirs as they stop."""
        for door in self.doors:
            door.close()

    def signal(self, takes: Callable[[str], bool], number: signal.Signals) -> None:
        """Tell every program with such a name."""
        for name, keeper in self._keepers.items():
            if keeper.running is not None and takes(name):
                keeper.running.signal(number)

    def started_at(self, name: str) -> float:
        """When a program was started last, in seconds since 1970; 0 when there is no such program."""
        keeper = self._keepers.get(name)
        return keeper.started_at if keeper else 0.0

    async def unready(self, foundation: Collection[str] = ()) -> set[str]:
        """The names of the programs that do not answer as ready now.

        Those of the foundation are asked only when another is not ready: while all that stands on them is,
        they are, and each question would wake them.
        """
        found = await self._unready(lambda name: name not in foundation)
        return found | await self._unready(lambda name: name in foundation) if found else found

    async def _unready(self, asked: Callable[[str], bool]) -> set[str]:
        keepers = [keeper for name, keeper in self._keepers.items() if asked(name)]
        answers = await asyncio.gather(*(keeper.is_ready() for keeper in keepers))
        return {keeper.program.name for keeper, ready in zip(keepers, answers, strict=True) if not ready}

    async def watch_logs(self) -> None:
        """Put large logs aside, so that a disk never fills with them."""
        largest = self._instance.settings.number("POSTHOUSE_LOG_MEGABYTES") * 1024 * 1024
        while True:
            for log in self._instance.logs.glob("*.log"):
                await asyncio.to_thread(put_aside, log, largest)
            await asyncio.sleep(30)

    def tell(self, text: str) -> None:
        """One line, with the time, for whoever watches."""
        self._console.line(f"  {time.strftime('%H:%M:%S')} {text}")


def put_aside(log: Path, largest: float) -> None:
    """Move a larger log to `<name>.log.1`: copied and cut, as its writers keep it open, to append."""
    with contextlib.suppress(OSError):
        if log.stat().st_size > largest:
            shutil.copyfile(log, log.with_name(log.name + ".1"))
            os.truncate(log, 0)


def _described(keeper: Keeper) -> dict[str, Any]:
    program = keeper.program
    return {
        "process": _numbers(keeper.running),
        "started_at": keeper.started_at,
        "ends": keeper.ends,
        "probes": program.probes,
        "address": program.address,
        "log": str(program.log),
        "stop_signal": int(program.stop_signal),
        "stop_seconds": program.stop_seconds,
    }


def _numbers(process: Process | None) -> list[Any] | None:
    return None if process is None else [process.pid, process.born]


def _kill_group(child: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)


def _how(code: int) -> str:
    if code < 0:
        return signal.Signals(-code).name
    return f"exit code {code}"
