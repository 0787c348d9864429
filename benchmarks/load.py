"""The load: wrk on keep-alive connections, a Lua file for each kind of request, figures as JSON."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

MARK = "figures: "
# wrk prints rounded figures for people; these are exact, in microseconds.
DONE = f"""
function done(summary, latency, requests)
  io.write(string.format('{MARK}{{"requests":%d,"micros":%d,"p50":%d,"p99":%d,"status":%d,'
    .. '"connect":%d,"read":%d,"write":%d,"timeout":%d}}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    summary.errors.status, summary.errors.connect, summary.errors.read, summary.errors.write,
    summary.errors.timeout))
end
"""
# Requests made once, then sent in turn.
ROTATE = """
local made, turn = {}, 0
function init(args)
  for number, path in ipairs(paths) do made[number] = wrk.format(nil, path) end
end
function request()
  turn = turn % #made + 1
  return made[turn]
end
"""
# Only to find out what is wrong: wrk is slower when it hands over every answer.
TELL = """
local told = false
function response(status, headers, body)
  if status > 299 and not told then
    told = true
    io.write("answer: ", status, " ", body:sub(1, 300), "\\n")
  end
end
"""


class WrongAnswers(Exception):
    """Something did not work: not a matter of speed."""


class Request(Struct, frozen=True, kw_only=True):
    """What is asked again and again; `lua` is put behind the plain script and may make each request anew."""

    path: str = "/"
    method: str = "GET"
    headers: Mapping[str, str] = {}
    body: str = ""
    paths: Sequence[str] = ()
    """Several paths that take turns, instead of `path`."""
    lua: str = ""


class Figures(Struct, frozen=True):
    """What wrk counted in one burst; times in microseconds."""

    requests: int
    micros: int
    p50: float
    p99: float
    status: int
    connect: int
    read: int
    write: int
    timeout: int

    @property
    def seconds(self) -> float:
        """How long the burst was."""
        return self.micros / 1e6

    @property
    def wrong(self) -> int:
        """Answers that were no 2xx, and requests without an answer."""
        return self.status + self.connect + self.read + self.write + self.timeout


def script(request: Request) -> str:
    """The Lua file of a kind of request."""
    lines = [f"wrk.method = {quoted(request.method)}"]
    lines += [f"wrk.headers[{quoted(name)}] = {quoted(value)}" for name, value in request.headers.items()]
    if request.body:
        lines.append(f"wrk.body = {quoted(request.body)}")
    if request.paths:
        lines.append(f"local paths = {{{', '.join(map(quoted, request.paths))}}}" + ROTATE)
    return "\n".join([*lines, request.lua, DONE])


def quoted(text: str) -> str:
    """A Lua string."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def figures_of(output: str) -> Figures:
    """The figures in what wrk printed; raises WrongAnswers when there are none."""
    for line in output.splitlines():
        if line.startswith(MARK):
            return msgspec.json.decode(line.removeprefix(MARK), type=Figures)
    raise WrongAnswers(f"wrk gave no figures: {output.strip()[-400:]}")


class Wrk:
    """Runs bursts; their Lua files are written to `place`."""

    def __init__(self, program: Path, place: Path) -> None:
        self._program = program
        self._place = place
        self._burst = 0

    async def wrong_answer(self, url: str, request: Request, connections: int) -> str:
        """The first wrong answer of another second, for people; empty when all are right."""
        asked = msgspec.structs.replace(request, lua=request.lua + TELL)
        output, _ = await self._run(url, asked, connections, 1)
        return next((line for line in output.splitlines() if line.startswith("answer: ")), "")

    async def burst(
        self, url: str, request: Request, connections: int, seconds: int
    ) -> tuple[Figures, float]:
        """One burst on one thread: its figures, and the CPU seconds the load itself took."""
        output, cpu = await self._run(url, request, connections, seconds)
        return figures_of(output), cpu

    async def _run(self, url: str, request: Request, connections: int, seconds: int) -> tuple[str, float]:
        self._burst += 1
        file = self._place / "burst.lua"
        file.write_text(script(request))
        flags = f"-t1 -c{connections} -d{seconds}s --latency --timeout 10s -s".split()
        child = _start([str(self._program), *flags, str(file), url + request.path, "--", str(self._burst)])
        try:
            return await asyncio.to_thread(_finish, child)
        except asyncio.CancelledError:
            child.send_signal(signal.SIGKILL)
            raise


def _start(command: Sequence[str]) -> subprocess.Popen[str]:
    # Not through asyncio: it would reap the child, and with it what the child took of the processor.
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _finish(child: subprocess.Popen[str]) -> tuple[str, float]:
    assert child.stdout is not None
    with child.stdout as stream:
        output = stream.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    return output, _cpu(usage)


def _cpu(usage: resource.struct_rusage) -> float:
    return usage.ru_utime + usage.ru_stime
