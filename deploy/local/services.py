"""Our own processes: which there are, how many of each, and what each is told."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

from deploy.identity import derive_password
from deploy.local.errors import Failure
from deploy.local.instance import Instance, plain_environment
from deploy.local.ports import WEB_PORT, Ports
from deploy.local.program import Program
from deploy.local.reaching import bracketed, from_here, host_of, is_encrypted, listen, tls_environment
from deploy.local.settings import SECRET_KEY

GATEWAY = "gateway"
MONITOR = "monitor"
BACKLOG = 1024


@dataclass(frozen=True)
class Addresses:
    """Administrators' addresses of the servers; an empty one is not known."""

    amqp: str = ""
    management: str = ""
    mqtt: str = ""
    database: str = ""
    redis: str = ""

    def environment(self, prefix: str = "POSTHOUSE") -> dict[str, str]:
        """As variables, the form of `addresses.env`."""
        named = {f"{prefix}_{name.upper()}_URL": value for name, value in vars(self).items()}
        return {name: value for name, value in named.items() if value}


ADDRESS_NAMES = tuple(f"POSTHOUSE_{item.name.upper()}_URL" for item in fields(Addresses))


def service_names(instance: Instance) -> list[str]:
    """Every service that can be run, the gateway last."""
    found = sorted(path.parent.name for path in instance.root.glob("services/*/__main__.py"))
    return sorted(found, key=lambda name: name == GATEWAY)


def base_environment(instance: Instance, key: str) -> dict[str, str]:
    """What every process of ours gets: all settings in force, wherever they came from."""
    unset = {"POSTHOUSE_LOCAL", "POSTHOUSE_ENV_FILE", "POSTHOUSE_DATA", *ADDRESS_NAMES}
    given = {name: value for name, value in instance.settings.values.items() if name not in unset}
    directories = {"POSTHOUSE_LOCAL": str(instance.local), "POSTHOUSE_DATA": str(instance.data)}
    fixed = {SECRET_KEY: key, "PYTHONUNBUFFERED": "1", **tls_environment(instance)}
    return plain_environment() | {"POSTHOUSE_COMMIT": commit(instance.root)} | given | directories | fixed


@cache
def commit(root: Path) -> str:
    """The commit that is checked out, when this is a git checkout."""
    try:
        answer = subprocess.run(
            ["git", "-C", root, "rev-parse", "--short=12", "HEAD"],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return ""
    return answer.stdout.strip()


@dataclass(frozen=True)
class Services:
    """Makes the program of each process of each service."""

    instance: Instance
    ports: Ports
    addresses: Addresses
    key: str
    scale: Mapping[str, int]

    @property
    def web_host(self) -> str:
        """The address the gateway listens on."""
        return host_of(self.instance.settings, "POSTHOUSE_HOST")

    @property
    def web_port(self) -> int:
        """The port all gateways share."""
        fixed = self.instance.settings.get("POSTHOUSE_PORT")
        return self.ports.get("web", fixed, first=WEB_PORT, host=self.web_host)

    @property
    def web_url(self) -> str:
        """Where a browser on this machine goes."""
        scheme = "https" if is_encrypted(self.instance.settings) else "http"
        return f"{scheme}://{bracketed(from_here(self.web_host))}:{self.web_port}"

    def open_doors(self) -> list[socket.socket]:
        """The web port, listening, and that of plain HTTP beside it: gateways are given them, come and go.

        A connection that arrives while one of them stops or starts waits in its queue for the next to accept
        it. With a socket for each gateway (SO_REUSEPORT) the kernel resets those in the closing one's queue.
        """
        wanted = [self.web_port]
        if beside := self.instance.settings.get("POSTHOUSE_HTTP_PORT"):
            wanted.append(self.ports.get("http", beside, host=self.web_host))
        doors: list[socket.socket] = []
        try:
            for port in wanted:
                doors.append(listen(self.web_host, port, BACKLOG))
        except OSError as error:
            for door in doors:
                door.close()
            raise Failure(f"Port {port} was taken by somebody else meanwhile: {error}") from None
        return doors

    def programs(self, *doors: int) -> list[Program]:
        """One for each process, as many of each service as the scale says; gateways listen on `doors`."""
        names = service_names(self.instance)
        if unknown := sorted(set(self.scale) - set(names)):
            raise Failure(f"scale: there is no service {unknown[0]}; there are {', '.join(names) or 'none'}.")
        return [
            self._program(name, number, doors)
            for name in names
            for number in range(1, self.scale.get(name, 1) + 1)
        ]

    def _program(self, service: str, number: int, doors: tuple[int, ...]) -> Program:
        name = process_name(service, number)
        # Each process is asked at a port of its own: at the shared one somebody else might answer.
        own = {"POSTHOUSE_OPS_ADDRESS": f"127.0.0.1:{self.ports.get(name)}"}
        address = f"http://{own['POSTHOUSE_OPS_ADDRESS']}"
        if service == GATEWAY:
            numbers = zip(("POSTHOUSE_LISTEN_FD", "POSTHOUSE_HTTP_LISTEN_FD"), map(str, doors), strict=False)
            own |= {"POSTHOUSE_PORT": str(self.web_port), **dict(numbers)}
        return Program(
            name=name,
            command=(str(self.instance.python), "-m", f"services.{service}"),
            env=base_environment(self.instance, self.key) | self._accounts(service) | own,
            log=self.instance.logs / f"{name}.log",
            probes=(f"{address}/readyz",),
            cwd=self.instance.root,
            address=self.web_url if service == GATEWAY else address,
            fds=doors if service == GATEWAY else (),
        )

    def _accounts(self, service: str) -> dict[str, str]:
        """The servers' addresses with this service's own account: less than an administrator may do."""
        role = f"posthouse_{service}"
        looks = service == GATEWAY and self.addresses.management
        return (self._monitor() if looks else {}) | {
            "POSTHOUSE_AMQP_URL": with_account(
                self.addresses.amqp, service, derive_password(self.key, f"amqp:{service}")
            ),
            "POSTHOUSE_DATABASE_URL": with_account(
                self.addresses.database, role, derive_password(self.key, f"postgres:{role}")
            ),
            "POSTHOUSE_REDIS_URL": self.addresses.redis,
        }

    def _monitor(self) -> dict[str, str]:
        """The management API for who only looks."""
        password = derive_password(self.key, f"amqp:{MONITOR}")
        return {"POSTHOUSE_MANAGEMENT_URL": with_account(self.addresses.management, MONITOR, password)}


def process_name(service: str, number: int) -> str:
    """`gateway`, then `gateway-2`."""
    return service if number == 1 else f"{service}-{number}"


def with_account(url: str, name: str, password: str) -> str:
    """The same address for another account."""
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{quote(name, safe='')}:{quote(password, safe='')}@{place}"))
