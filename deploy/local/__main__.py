"""The commands of `./posthouse`."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from deploy.local import prometheus
from deploy.local import settings as configuration
from deploy.local.benching import bench
from deploy.local.console import Console
from deploy.local.detach import detach
from deploy.local.errors import Failure
from deploy.local.faulting import faults
from deploy.local.instance import ROOT, Instance
from deploy.local.lines import show
from deploy.local.reaching import check_certificate, is_encrypted
from deploy.local.restore import restore
from deploy.local.servers import install
from deploy.local.services import base_environment
from deploy.local.status import down, status, supervisor_of
from deploy.local.testing import check, test
from deploy.local.up import AlreadyRunning, supervise, told

WITH_LIBRARIES = {
    "account": "broker accounts for services of your own: add, list, remove",
    "import": "bring data in",
    "export": "take data out",
    "backup": "everything that is worth keeping, in one file, while Posthouse runs",
    "doctor": "look for what is wrong and say what to do",
}
"""Commands that need more than the standard library; they are `deploy.cli`."""


def main(arguments: Sequence[str]) -> int:
    """Run one command; a failure is one sentence and the end of its log."""
    command, rest = (arguments[0], list(arguments[1:])) if arguments else ("--help", [])
    try:
        instance = Instance(configuration.load(ROOT))
        if command in WITH_LIBRARIES:
            return _with_libraries(instance, command, rest)
        if command == "test":
            return test(instance, rest)
        if command == "bench":
            return bench(instance, rest)
        if command == "faults":
            return faults(instance, rest)
        options = _parser().parse_args(arguments or ["--help"])
        work: Callable[[Instance, argparse.Namespace], int] = options.work
        return work(instance, options)
    except Failure as failure:
        print(f"\n{failure.text()}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="./posthouse", description="Posthouse on this machine.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")

    def add(
        name: str, work: Callable[[Instance, argparse.Namespace], int], text: str
    ) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=text, description=text)
        one.set_defaults(work=work)
        return one

    up = add("up", _up, "start everything; Ctrl-C stops it")
    up.add_argument(
        "--detach", action="store_true", help="return when all is ready; ./posthouse down stops it"
    )
    up.add_argument(
        "--scale", metavar="NAME=N,...", help="processes of each service, as in gateway=2,ingest=3"
    )
    add("down", lambda instance, _: down(instance, Console()), "stop everything; the data stays")
    add("reload", _reload, "read the certificate of the web port again; no connection is dropped")
    one = add("status", _status, "each process: id, ready, memory; exit code 0: all ready, 3: nothing runs")
    one.add_argument("--json", action="store_true", help="for scripts")
    one.add_argument("--wait", metavar="SECONDS", type=float, default=0, help="until all is ready")
    logs = add("logs", _logs, "the last lines of each log, or of one")
    logs.add_argument("name", nargs="*", help="gateway, auth, ..., rabbitmq, postgres, redis, supervisor")
    logs.add_argument("-f", "--follow", action="store_true", help="and all that follows")
    logs.add_argument("-n", "--lines", type=int, default=40, help="how many of each (40)")
    logs.add_argument("--json", action="store_true", help="as they were written, on a terminal too")
    back = add("restore", _restore, "what a backup holds, into an instance that holds nothing")
    back.add_argument("file", type=Path, metavar="FILE", help="what ./posthouse backup wrote")
    back.add_argument(
        "--replace", action="store_true", help="put the data that is here aside; it stays on the disk"
    )
    back.add_argument(
        "--check", action="store_true", help="only look whether the file is whole, and say what it is"
    )
    watched = add("prometheus", _prometheus, "a Prometheus configuration with the addresses of what runs")
    watched.add_argument("directory", type=Path, nargs="?", help="where to (.local/prometheus)")
    add("settings", _settings, "every setting: value, and where it comes from; secrets hidden")
    commands.add_parser(
        "test", help="run the tests on servers of their own; arguments go to pytest", add_help=False
    )
    commands.add_parser("bench", help="measure ours beside others; arguments name the parts", add_help=False)
    commands.add_parser("faults", help="break everything under load; arguments name the rows", add_help=False)
    add("check", lambda instance, _: check(instance), "style, types and who may import whom")
    for name, text in WITH_LIBRARIES.items():
        commands.add_parser(name, help=text, add_help=False)
    supervisor = commands.add_parser("supervise")  # what --detach leaves running
    supervisor.set_defaults(work=_supervise)
    supervisor.add_argument("--scale", default="")
    supervisor.add_argument("--watcher", type=int)
    supervisor.add_argument("--began", type=float)
    return parser


def _up(instance: Instance, options: argparse.Namespace) -> int:
    began = time.time()
    text = options.scale or os.environ.get("SCALE") or instance.settings.get("POSTHOUSE_SCALE")
    scale = configuration.scale_of(text)
    console = Console()
    if supervisor_of(instance):
        return _say_it_runs(instance, console)
    console.line("Posthouse starts." if options.detach else "Posthouse starts; Ctrl-C stops it.")
    install(instance, console)
    if options.detach:
        return detach(instance, ["--scale", text] if text else [], began)
    return _run(instance, scale, console, began)


def _supervise(instance: Instance, options: argparse.Namespace) -> int:
    console = Console(options.watcher)
    try:
        return _run(instance, configuration.scale_of(options.scale), console, options.began)
    except Failure as failure:
        console.line(f"\n{failure.text()}")
        return 1


def _run(instance: Instance, scale: dict[str, int], console: Console, began: float) -> int:
    try:
        asyncio.run(supervise(instance, scale, console, began))
    except AlreadyRunning:
        return _say_it_runs(instance, console)
    return 0


def _say_it_runs(instance: Instance, console: Console) -> int:
    console.line("Posthouse runs already. ./posthouse down stops it.")
    for line in told(instance.read_state()):
        console.line(line)
    console.ready()
    return 0


def _status(instance: Instance, options: argparse.Namespace) -> int:
    return status(instance, as_json=options.json, wait_seconds=options.wait)


def _reload(instance: Instance, _: argparse.Namespace) -> int:
    if is_encrypted(instance.settings):
        check_certificate(instance)
    supervisor = supervisor_of(instance)
    if supervisor is None:
        raise Failure("Posthouse is not running.")
    supervisor.signal(signal.SIGHUP)
    print("The gateways read the certificate again; ./posthouse logs gateway says until when it is good.")
    return 0


def _logs(instance: Instance, options: argparse.Namespace) -> int:
    present = sorted(path.stem for path in instance.logs.glob("*.log"))
    if unknown := sorted(set(options.name) - set(present)):
        raise Failure(f"There is no log {unknown[0]}; there are {', '.join(present) or 'none yet'}.")
    files = [instance.logs / f"{name}.log" for name in options.name or present]
    if not files:
        raise Failure(f"There are no logs in {instance.logs} yet.")
    return show(files, options.lines, options.follow, options.json)


def _restore(instance: Instance, options: argparse.Namespace) -> int:
    return restore(instance, options.file, Console(), instead=options.replace, look_only=options.check)


def _prometheus(instance: Instance, options: argparse.Namespace) -> int:
    directory = options.directory or instance.local / "prometheus"
    for line in prometheus.configure(instance, directory.resolve()):
        print(line)
    return 0


def _settings(instance: Instance, options: argparse.Namespace) -> int:
    if instance.python.exists():
        done = subprocess.run([instance.python, "-m", "deploy.settings"], cwd=instance.root, check=False)
        return done.returncode
    for name, value, source in configuration.own_settings(instance.settings):
        print(f"{name:<26} {value or '-':<36} {source}")
    print("Those of the services are shown as well when the libraries are installed (./posthouse up).")
    return 0


def _with_libraries(instance: Instance, command: str, rest: list[str]) -> int:
    if not instance.python.exists():
        raise Failure("Run ./posthouse up first.")
    key = instance.settings.get(configuration.SECRET_KEY)
    addresses = configuration.read_file(instance.addresses)
    own = {"PYTHONPATH": str(instance.root), "POSTHOUSE_ENV_FILE": str(instance.settings.file)}
    env = base_environment(instance, key) | addresses | own
    os.execve(instance.python, [str(instance.python), "-m", "deploy.cli", command, *rest], env)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
