"""What a run needs: one private Posthouse as `make up` starts it, and peers beside it on the same servers."""

from __future__ import annotations

import asyncio
import dataclasses
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import aiohttp
import asyncpg

from benchmarks.install import Installed
from benchmarks.load import Wrk, WrongAnswers
from benchmarks.peers import PEERS
from benchmarks.progress import Progress
from deploy.local import settings as configuration
from deploy.local.errors import Failure, tail
from deploy.local.instance import Instance, plain_environment
from deploy.local.ports import Ports
from deploy.local.probe import answers
from deploy.local.services import Addresses, Services

VHOST = DATABASE = "bench"
READY_SECONDS = 60.0
STOP_SECONDS = 5.0
ACCOUNT = {"name": "bench", "password": "measured side by side"}


@dataclasses.dataclass(frozen=True)
class Running:
    """A peer that serves: where, and its processes."""

    name: str
    label: str
    url: str
    processes: Mapping[str, subprocess.Popen[bytes]]

    @property
    def pids(self) -> dict[str, list[int]]:
        """The process numbers by role."""
        return {role: [child.pid] for role, child in self.processes.items()}

    async def stop(self) -> None:
        """Ask all its processes to end, and end those that do not."""
        for child in self.processes.values():
            child.terminate()
        for child in self.processes.values():
            try:
                await asyncio.to_thread(child.wait, STOP_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()
                await asyncio.to_thread(child.wait)


class Stage:
    """One Posthouse of our own; every part works on it."""

    def __init__(self, instance: Instance, installed: Installed, progress: Progress, *, quick: bool) -> None:
        self.instance = instance
        self.installed = installed
        self.progress = progress
        self.rotations, self.seconds = (2, 1) if quick else (5, 2)
        self.place = instance.local.parent
        self.wrk = Wrk(installed.wrk, self.place)
        self.missing = dict(installed.missing)
        self.memory_at_start: dict[str, int] = {}
        self._connections: dict[str, asyncpg.Connection] = {}
        self._peer_ports = Ports(self.place / "ports.json")
        self._port = str(self._peer_ports.get("posthouse"))
        self._token, self._token_until = "", 0.0

    # Ours

    @property
    def environment(self) -> dict[str, str]:
        """That of a user of this instance: nothing is set but where it lies, and its port."""
        return plain_environment() | {
            "POSTHOUSE_LOCAL": str(self.instance.local),
            "POSTHOUSE_PORT": self._port,
        }

    async def posthouse(self, *arguments: str, quiet: bool = False) -> str:
        """`./posthouse <arguments>`; answers what it printed, raises Failure when it fails."""
        child = await asyncio.create_subprocess_exec(
            str(self.instance.root / "posthouse"),
            *arguments,
            env=self.environment,
            cwd=self.instance.root,
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            output, _ = await child.communicate()
        except asyncio.CancelledError:
            child.send_signal(2)  # it passes that on to what it has started, and waits for it
            await child.wait()
            raise
        text = output.decode(errors="replace")
        if child.returncode != 0:
            raise Failure(f"./posthouse {' '.join(arguments)}: exit code {child.returncode}\n{text}")
        if not quiet:
            print(text, file=sys.stderr, end="", flush=True)
        return text

    async def start(self) -> float:
        """Start ours; answers how long that took, as its user sees it."""
        began = time.monotonic()
        await self.posthouse("up", "--detach", quiet=True)
        return time.monotonic() - began

    async def stop(self) -> None:
        """Stop ours."""
        for connection in self._connections.values():
            connection.terminate()
        self._connections.clear()
        await self.posthouse("down", quiet=True)

    async def prepare(self) -> None:
        """A virtual host and a database for the peers, and an account of ours."""
        async with aiohttp.ClientSession() as client:
            await self._make_vhost(client)
        admin = await asyncpg.connect(self.addresses["POSTHOUSE_DATABASE_URL"])
        await admin.execute(f"CREATE DATABASE {DATABASE}")
        await admin.close()
        await self.ask("POST", "/v1/setup", ACCOUNT | {"email": "bench@example.org"})

    async def _make_vhost(self, client: aiohttp.ClientSession) -> None:
        api = self.addresses["POSTHOUSE_MANAGEMENT_URL"] + "/api"
        account = urlsplit(api).username
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        for path, body in (
            (f"/vhosts/{VHOST}", None),
            (f"/permissions/{VHOST}/{account}", everything),
        ):
            async with client.put(api + path, json=body) as answer:
                answer.raise_for_status()

    @property
    def addresses(self) -> dict[str, str]:
        """Administrators' addresses of our instance."""
        return configuration.read_file(self.instance.addresses)

    @property
    def url(self) -> str:
        """Where our gateway listens."""
        return self.addresses["POSTHOUSE_URL"]

    @property
    def pids(self) -> dict[str, list[int]]:
        """The processes of our instance by name."""
        programs = self.instance.read_state().get("programs", {})
        return {name: [facts["process"][0]] for name, facts in programs.items() if facts["process"]}

    @property
    def supervisor(self) -> int:
        """The process that keeps them running."""
        return int(self.instance.read_state()["supervisor"][0])

    async def versions(self) -> list[str]:
        """Ours, the servers', the peers'."""
        connection = await self.database()
        postgres = await connection.fetchval("SELECT split_part(version(), ' ', 2)")
        async with (
            aiohttp.ClientSession() as client,
            client.get(self.addresses["POSTHOUSE_MANAGEMENT_URL"] + "/api/overview") as answer,
        ):
            broker = await answer.json()
        rabbitmq, erlang = broker["rabbitmq_version"], broker["erlang_version"]
        return [
            f"PostgreSQL {postgres}, RabbitMQ {rabbitmq} on Erlang {erlang}",
            *(f"{peer.name}: {peer.label}" for peer in PEERS.values()),
        ]

    async def check_rows(self) -> None:
        """Raises WrongAnswers when a dataset has not as many rows as its counter says."""
        connection = await self.database()
        wrong = await connection.fetch(
            """
            SELECT c.dataset, c.entries, count(r.entry) AS rows
            FROM ingest.dataset_counter c LEFT JOIN ingest.reading r ON r.dataset = c.dataset
            GROUP BY c.dataset, c.entries HAVING c.entries <> count(r.entry)
            """
        )
        if wrong:
            raise WrongAnswers(f"rows are not what the counters say: {[dict(row) for row in wrong[:3]]}")

    async def ask(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] = {}) -> Any:
        """One request to our gateway; raises WrongAnswers when it is not answered with a 2xx."""
        async with (
            aiohttp.ClientSession() as client,
            client.request(method, self.url + path, json=body, headers=headers) as answer,
        ):
            if not answer.ok:
                raise WrongAnswers(f"{method} {path}: {answer.status} {(await answer.text())[:300]}")
            return await answer.json()

    async def bearer(self) -> dict[str, str]:
        """A header that says who calls, good for some minutes."""
        if time.monotonic() > self._token_until:
            opened = await self.ask("POST", "/v1/sessions", ACCOUNT)
            self._token = opened["access_token"]
            self._token_until = time.monotonic() + opened["expires_in"] / 2
        return {"Authorization": f"Bearer {self._token}"}

    async def dataset(self, name: str, *tags: str) -> str:
        """A new dataset; answers its id."""
        body = {"name": name, "variables": [{"tag": tag} for tag in tags or ("temperature", "humidity")]}
        made = await self.ask("POST", "/v1/datasets", body, await self.bearer())
        return str(made["id"])

    async def database(self, name: str = "") -> asyncpg.Connection:
        """A superuser's connection to our database, or to that of the peers; kept until the end."""
        if name not in self._connections:
            self._connections[name] = await asyncpg.connect(self.database_url(name))
        return self._connections[name]

    def database_url(self, name: str = "") -> str:
        """The address of our database, or of that of the peers."""
        url = self.addresses["POSTHOUSE_DATABASE_URL"]
        return with_path(url, name) if name else url

    @asynccontextmanager
    async def second_gateway(self, **settings: str) -> AsyncIterator[Running]:
        """Another gateway of the same instance, at a port of its own, with these settings."""
        key = configuration.read_file(self.instance.local / "posthouse.env")[configuration.SECRET_KEY]
        known = {f"POSTHOUSE_{field.name.upper()}_URL": field.name for field in dataclasses.fields(Addresses)}
        addresses = Addresses(
            **{known[name]: value for name, value in self.addresses.items() if name in known}
        )
        services = Services(self.instance, self._peer_ports, addresses, key, {"gateway": 2})
        program = next(one for one in services.programs(0) if one.name == "gateway-2")
        port = self._peer_ports.get("second gateway")
        own = {"POSTHOUSE_PORT": str(port), "POSTHOUSE_LISTEN_FD": "0"}
        log = self.place / "gateway-2.log"
        child = self._spawn(program.command, dict(program.env) | own | settings, log)
        gateway = Running("gateway-2", "", f"http://127.0.0.1:{port}", {"gateway-2": child})
        try:
            await _until_answers(program.probes[0], child, log)
            yield gateway
        finally:
            await gateway.stop()

    # Peers

    @asynccontextmanager
    async def peers(self, *names: str) -> AsyncIterator[dict[str, Running]]:
        """Start these side by side; one that does not start goes to `missing`, with the reason."""
        started = await asyncio.gather(*(self._peer(name) for name in names))
        running = {peer.name: peer for peer in started if peer}
        try:
            yield running
        finally:
            await asyncio.gather(*(peer.stop() for peer in running.values()))

    async def _peer(self, name: str) -> Running | None:
        kind = PEERS.get(name.partition("#")[0])
        if kind is None or kind.name in self.missing:
            self.missing.setdefault(name, "not written yet")
            return None
        port = self._peer_ports.get(name)
        logs = {role: self.place / f"{name}-{role}.log" for role in kind.roles}
        children = {
            role: self._spawn(self.installed.command(kind, role, port), self._peer_environment, log)
            for role, log in logs.items()
        }
        peer = Running(name, kind.label, f"http://127.0.0.1:{port}", children)
        try:
            await asyncio.gather(*(_until_ready(children[role], log) for role, log in logs.items()))
        except Failure as failure:
            self.missing[name] = failure.reason
            await peer.stop()
            return None
        except asyncio.CancelledError:
            await peer.stop()
            raise
        return peer

    @property
    def _peer_environment(self) -> dict[str, str]:
        return plain_environment() | {
            "BENCH_AMQP_URL": with_path(self.addresses["POSTHOUSE_AMQP_URL"], VHOST),
            "BENCH_DATABASE_URL": self.database_url(DATABASE),
            "PYTHONUNBUFFERED": "1",  # `ready` is looked for in the log
        }

    def _spawn(
        self, command: Sequence[str], environment: Mapping[str, str], log: Path
    ) -> subprocess.Popen[bytes]:
        with log.open("wb") as file:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env=environment,
                cwd=self.instance.root,
            )


async def _until_ready(child: subprocess.Popen[bytes], log: Path) -> None:
    await _until(lambda: "ready" in log.read_text(errors="replace").split("\n"), child, log)


async def _until_answers(address: str, child: subprocess.Popen[bytes], log: Path) -> None:
    await _until(lambda: answers(address), child, log)


async def _until(what: Callable[[], bool], child: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + READY_SECONDS
    while not await asyncio.to_thread(what):
        if child.poll() is not None or time.monotonic() > end:
            raise Failure(f"did not start: {' '.join(tail(log, 1)) or 'it said nothing'}")
        await asyncio.sleep(0.05)


def with_path(url: str, path: str) -> str:
    """The same server, another virtual host or database."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{path}"))
