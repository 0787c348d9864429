"""One instance from nothing to ready, and to the end."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from deploy.identity import fingerprint, setup_code
from deploy.local.console import Console
from deploy.local.errors import Failure, tail
from deploy.local.files import try_lock, write
from deploy.local.instance import Instance
from deploy.local.ports import Ports
from deploy.local.processes import Process
from deploy.local.rabbitmq import ADMIN, NO_ELECTION
from deploy.local.reaching import check, elsewhere, has_terminal, is_set_up
from deploy.local.servers import SERVERS, STOP_ORDER, Servers
from deploy.local.services import Services, base_environment, service_names
from deploy.local.settings import SECRET_KEY, secret_key
from deploy.local.supervisor import Supervisor

PREPARE_SECONDS = 120
MEND_SECONDS = 2.0
ELECT_AFTER_SECONDS = 10.0


class AlreadyRunning(Exception):
    """Another supervisor has this instance."""


async def supervise(instance: Instance, scale: Mapping[str, int], console: Console, began: float) -> None:
    """Start everything, keep it running until a signal, stop everything; raises Failure or AlreadyRunning."""
    lock = try_lock(instance.run / "supervisor.lock")
    if lock is None:
        raise AlreadyRunning
    with lock, _alone_with(instance.data):
        stop_left_over(instance, console)
        supervisor = Supervisor(instance, console)
        end = _signals(lambda: supervisor.signal(STOP_ORDER[0], signal.SIGHUP))
        try:
            start = asyncio.create_task(_start(instance, scale, supervisor, console, began))
            ended = asyncio.create_task(end.wait())
            await asyncio.wait({start, ended}, return_when=asyncio.FIRST_COMPLETED)
            if start.done():
                repairs = start.result()
                console.ready()
                watches = [
                    asyncio.create_task(supervisor.watch_logs()),
                    asyncio.create_task(mend(supervisor, repairs)),
                ]
                await ended
                for watch in watches:
                    watch.cancel()
                await asyncio.gather(*watches, return_exceptions=True)
            else:
                start.cancel()
                await asyncio.gather(start, return_exceptions=True)
        finally:
            supervisor.close_doors()
            with console.step("stop", "in order: gateway, services, servers"):
                await supervisor.stop(STOP_ORDER)
            instance.state.unlink(missing_ok=True)


def _alone_with(data: Path) -> IO[str]:
    """Two instances can be told to use the same data; RabbitMQ would not notice."""
    lock = try_lock(data / "lock")
    if lock is None:
        raise Failure(
            f"The data in {data} is in use by another instance: stop that one, or set POSTHOUSE_DATA."
        )
    return lock


def _signals(read_again: Callable[[], None]) -> asyncio.Event:
    """Set when it is time to stop.

    SIGHUP has two meanings, told apart by what is still there: from a terminal that was closed it is the end,
    otherwise the gateways are to read their certificate again.
    """
    end = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end.set)
    began_at_one = has_terminal()

    def hung_up() -> None:
        if began_at_one and not has_terminal():
            end.set()
        else:
            read_again()

    loop.add_signal_handler(signal.SIGHUP, hung_up)
    return end


async def _start(
    instance: Instance, scale: Mapping[str, int], supervisor: Supervisor, console: Console, began: float
) -> Repairs:
    seconds = instance.settings.number("POSTHOUSE_START_SECONDS")
    check(instance)
    key = checked_key(instance)
    ports = Ports(instance.run / "ports.json")
    servers = Servers(instance, ports, key)
    services = Services(instance, ports, servers.addresses, key, scale)
    supervisor.doors = services.open_doors()
    processes = services.programs(*(door.fileno() for door in supervisor.doors))
    with console.step("data", "directories and configuration"):
        programs = await servers.programs()
    await supervisor.start(programs, seconds)
    with console.step("prepare", "accounts, schemas, queues"):
        await _prepare(instance, servers, key)
    _write_addresses(instance, services)
    await supervisor.start(processes, seconds)
    supervisor.facts |= {
        "url": services.web_url,
        "summary": summary(instance, services, servers),
        "setup": f"from another machine with the code {setup_code(key)}",
    }
    supervisor.write_state()
    console.line(f"\nPosthouse is ready after {time.time() - began:.1f} s.")
    for line in await asyncio.to_thread(told, supervisor.facts):
        console.line(line)
    return Repairs(lambda: _prepare(instance, servers, key), servers.rabbit.elect if servers.rabbit else None)


@dataclass(frozen=True)
class Repairs:
    """What can be done to a running instance: make what is missing; elect leaders in a broker of our own."""

    prepare: Callable[[], Awaitable[None]]
    elect: Callable[[], str] | None


async def mend(supervisor: Supervisor, repairs: Repairs, every_seconds: float = MEND_SECONDS) -> None:
    """Look every few seconds for what does not mend itself.

    Services that stay unready while every server answers: somebody deleted a queue. They may not declare
    anything themselves; they say what is missing and take from it once it is back. Queues without a leader
    some time after the broker's start: see `ELECT` in rabbitmq.py.
    """
    before: set[str] = set()
    elected_in = 0.0
    while True:
        await asyncio.sleep(every_seconds)
        unready = await supervisor.unready(foundation=SERVERS)
        if unready & before and not unready & SERVERS:
            await _make_again(supervisor, repairs, unready)
        before = unready
        started = supervisor.started_at("rabbitmq")
        if repairs.elect and started != elected_in and time.time() - started > ELECT_AFTER_SECONDS:
            elected_in = started
            answer = await asyncio.to_thread(repairs.elect)
            if answer != NO_ELECTION:
                supervisor.tell(f"elected leaders for queues that had none: {answer}")


async def _make_again(supervisor: Supervisor, repairs: Repairs, unready: set[str]) -> None:
    supervisor.tell(f"{', '.join(sorted(unready))} not ready: preparing database and broker again")
    try:
        await repairs.prepare()
    except Failure as failure:
        supervisor.tell(f"preparing failed: {failure}")


def checked_key(instance: Instance) -> str:
    """The secret key, if it is the one this data was made with."""
    if instance.restoring.exists() and not instance.holds_data():
        raise Failure(
            f"A restore was interrupted: do it again, or remove {instance.restoring} to start with nothing."
        )
    mark = instance.data / "key-fingerprint"
    key = instance.settings.get(SECRET_KEY)
    if mark.exists() and (not key or mark.read_text().strip() != fingerprint(key)):
        raise Failure(
            f"The data in {instance.data} was made with another {SECRET_KEY}: bring back the settings file "
            f"{instance.settings.file} that was beside it."
        )
    key = secret_key(instance.settings)
    write(mark, fingerprint(key) + "\n")
    return key


async def _prepare(instance: Instance, servers: Servers, key: str) -> None:
    log = instance.logs / "prepare.log"
    with log.open("ab") as file:
        child = await asyncio.create_subprocess_exec(
            str(instance.python),
            "-m",
            "deploy.prepare",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env=base_environment(instance, key) | servers.addresses.environment(),
            cwd=instance.root,
        )
    try:
        code = await asyncio.wait_for(child.wait(), PREPARE_SECONDS)
    except TimeoutError:
        raise Failure(f"not done after {PREPARE_SECONDS} s", log) from None
    finally:
        if child.returncode is None:
            child.kill()
    if code != 0:
        raise Failure((tail(log, 1) or [f"exit code {code}"])[0], log)


def _write_addresses(instance: Instance, services: Services) -> None:
    values = {"POSTHOUSE_URL": services.web_url} | services.addresses.environment()
    head = "# Administrators' addresses of this instance, with passwords. Written at every start.\n"
    write(instance.addresses, head + "".join(f"{name}={value}\n" for name, value in values.items()))


def told(facts: Mapping[str, Any]) -> list[str]:
    """What a start says when all is ready: where everything is and, until it was done, how to begin."""
    lines = list(facts.get("summary", []))
    if facts.get("url") and not is_set_up(facts["url"]):
        lines.append(f"  {'Setup':<10} {facts['url']}/setup   {facts['setup']}")
    return lines


def summary(instance: Instance, services: Services, servers: Servers) -> list[str]:
    """The short block that says where everything is."""
    url = instance.settings.get("POSTHOUSE_PUBLIC_URL").rstrip("/") or services.web_url
    lines = [
        ("Web", url + "/"),
        ("Elsewhere", _elsewhere(services)),
        ("API docs", url + "/docs"),
        ("RabbitMQ", _management(instance, servers)),
        ("Metrics", _metrics(instance, services, servers)),
        ("Logs", f"{_short(instance.logs)}/   or: ./posthouse logs [name] -f"),
        ("Stop", "Ctrl-C, or from elsewhere: ./posthouse down"),
    ]
    return [f"  {name:<10} {value}" for name, value in lines if value]


def _elsewhere(services: Services) -> str:
    """What other machines call: an address tells more than 0.0.0.0."""
    found = elsewhere(services.web_url, services.web_host)
    if not found:
        return ""
    is_safe = found.startswith("https:")
    return f"{found}/" + ("" if is_safe else "   not encrypted: set POSTHOUSE_TLS_CERT or use a proxy")


def _management(instance: Instance, servers: Servers) -> str:
    if servers.rabbit is None:
        return ""
    where = f"http://127.0.0.1:{servers.rabbit.ports.management}/"
    return f"{where}   account {ADMIN}, password in {_short(instance.addresses)}"


def _metrics(instance: Instance, services: Services, servers: Servers) -> str:
    behind = [f"{name} :{services.ports.get(name)}" for name in service_names(instance) if name != "gateway"]
    if servers.rabbit:
        behind.append(f"rabbitmq :{servers.rabbit.ports.prometheus}")
    return f"{services.web_url}/metrics" + (f"   and {', '.join(behind)}" if behind else "")


def _short(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def stop_left_over(instance: Instance, console: Console) -> None:
    """Stop what an earlier supervisor left behind when it was killed; only what is surely the same."""
    programs = instance.read_state().get("programs", {})
    left = {name: facts for name, facts in programs.items() if Process.recorded(facts["process"])}
    if left:
        with console.step("left over", f"{len(left)} processes of an earlier start"):
            for takes in STOP_ORDER:
                _stop([left.pop(name) for name in list(left) if takes(name)])
    for name in programs:
        (instance.run / f"{name}.pid").unlink(missing_ok=True)


def _stop(group: list[dict[str, Any]]) -> None:
    for facts in group:
        Process(*facts["process"]).signal(signal.Signals(facts["stop_signal"]))
    for facts in group:
        Process(*facts["process"]).wait_or_kill(facts["stop_seconds"])
