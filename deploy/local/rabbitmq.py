"""A private RabbitMQ: its own Erlang, its own epmd, loopback only, no guest account."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from deploy.local import rabbitmq4
from deploy.local.debian import Apt
from deploy.local.errors import Failure
from deploy.local.files import write
from deploy.local.instance import Instance, plain_environment
from deploy.local.moved import follow
from deploy.local.probe import answers
from deploy.local.program import Program
from deploy.local.python_env import find_program
from deploy.local.reaching import bracketed, from_here

ADMIN = "admin"
# A quorum queue whose broker was killed within a second of its declaration comes back without a leader and
# stays so for ever (rabbitmq-server issue 10070): everything published to it waits. An election mends it.
ELECT = """
[catch ra:trigger_election({Name, node()})
 || Queue <- rabbit_amqqueue:list(),
    amqqueue:get_type(Queue) =:= rabbit_quorum_queue,
    {Name, _} <- [amqqueue:get_pid(Queue)],
    ra_leaderboard:lookup_leader(Name) =:= undefined].
"""
# Nobody is anonymous; and what the page of operations and the doctor read goes on being counted.
ON_4 = """anonymous_login_user = none
deprecated_features.permit.management_metrics_collection = true
"""
ELECT_SECONDS = 60
NO_ELECTION = "[]"
PLUGINS = ("rabbitmq_management", "rabbitmq_prometheus", "rabbitmq_mqtt")


@dataclass(frozen=True)
class Software:
    """Where one RabbitMQ and the Erlang for it are."""

    server: Path
    erlang: Path
    """The directory with `erl` and `epmd`."""
    plugins: Path | None = None


@dataclass(frozen=True)
class RabbitPorts:
    """Everything a node listens on."""

    amqp: int
    management: int
    prometheus: int
    mqtt: int
    distribution: int
    epmd: int
    mqtt_host: str = "127.0.0.1"


@dataclass(frozen=True)
class Rabbit:
    """One RabbitMQ node of an instance."""

    instance: Instance
    ports: RabbitPorts
    password: str
    safe: bool = True
    """False only for throw-away test servers: then it is not given the time to say goodbye (six seconds)."""

    @property
    def amqp_url(self) -> str:
        """The administrator's address."""
        return f"amqp://{ADMIN}:{self.password}@127.0.0.1:{self.ports.amqp}"

    @property
    def management_url(self) -> str:
        """The administrator's address of the management API."""
        return f"http://{ADMIN}:{self.password}@127.0.0.1:{self.ports.management}"

    @property
    def mqtt_url(self) -> str:
        """Where devices connect."""
        return f"mqtt://{bracketed(from_here(self.ports.mqtt_host))}:{self.ports.mqtt}"

    def prepare(self) -> tuple[Program, Program]:
        """Write the configuration; answers epmd, which goes first, and the broker."""
        software = find(self.instance)
        if software is None:
            raise Failure("RabbitMQ is not here: run ./posthouse up once with a network.")
        home = self.instance.data / "rabbitmq"
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        if rabbitmq4.is_chosen(self.instance):
            rabbitmq4.keep_to_it(self.instance, version_without_4(self.instance))
        for directory in ("home", "mnesia", "generated", "schema", "log"):
            (home / directory).mkdir(exist_ok=True)
        follow(home / "mnesia")
        write(home / "rabbitmq.conf", self._config(_version(software)))
        write(home / "enabled_plugins", f"[{','.join(PLUGINS)}].\n")
        env = self._environment(software, home)
        return self._epmd(software, env), self._broker(software, env, home)

    def elect(self) -> str:
        """Elect a leader for each quorum queue that has none; what the broker answers, `[]` when all have."""
        software = find(self.instance)
        control = software.server.with_name("rabbitmqctl") if software else None
        if software is None or control is None or not control.exists():
            return "no rabbitmqctl"
        try:
            done = self._control(control, software, "eval", ELECT)
        except subprocess.TimeoutExpired:
            return f"no answer in {ELECT_SECONDS} s"
        return (done.stdout or done.stderr).strip()

    def _control(
        self, control: Path, software: Software, *arguments: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [control, *arguments],
            env=self._environment(software, self.instance.data / "rabbitmq"),
            cwd=self.instance.data / "rabbitmq",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=ELECT_SECONDS,
            check=False,
        )

    def _epmd(self, software: Software, env: dict[str, str]) -> Program:
        return Program(
            name="epmd",
            command=(str(software.erlang / "epmd"), "-port", str(self.ports.epmd), "-address", "127.0.0.1"),
            env=env,
            log=self.instance.logs / "epmd.log",
            probes=(f"epmd://127.0.0.1:{self.ports.epmd}",),
            address=f"127.0.0.1:{self.ports.epmd}",
        )

    def _broker(self, software: Software, env: dict[str, str], home: Path) -> Program:
        ports = self.ports
        return Program(
            name="rabbitmq",
            command=(str(software.server),),
            env=env,
            log=self.instance.logs / "rabbitmq.log",
            probes=(
                # Opened last when it boots. A handshake left half done would be a warning in its log.
                f"tcp://127.0.0.1:{ports.amqp}",
                f"http://127.0.0.1:{ports.management}/",
                f"tcp://{bracketed(from_here(ports.mqtt_host))}:{ports.mqtt}",
            ),
            cwd=home,
            stop_signal=signal.SIGTERM if self.safe else signal.SIGKILL,
            before=self._wait_for_epmd,
            address=f"127.0.0.1:{ports.amqp}",
        )

    def _wait_for_epmd(self) -> None:
        for _ in range(100):
            if answers(f"epmd://127.0.0.1:{self.ports.epmd}"):
                return
            time.sleep(0.05)

    def _config(self, version: tuple[int, ...]) -> str:
        ports = self.ports
        newer = ON_4 if version >= (4,) else ""
        return f"""listeners.tcp.local = 127.0.0.1:{ports.amqp}
management.tcp.ip = 127.0.0.1
management.tcp.port = {ports.management}
prometheus.tcp.ip = 127.0.0.1
prometheus.tcp.port = {ports.prometheus}
mqtt.listeners.tcp.1 = {ports.mqtt_host}:{ports.mqtt}
mqtt.allow_anonymous = false
{newer}default_user = {ADMIN}
default_pass = {self.password}
default_user_tags.administrator = true
default_permissions.configure = .*
default_permissions.read = .*
default_permissions.write = .*
heartbeat = 10
raft.wal_max_size_bytes = 67108864
log.file = false
log.console = true
log.console.level = warning
"""

    def _environment(self, software: Software, home: Path) -> dict[str, str]:
        env = {k: v for k, v in plain_environment().items() if not k.startswith(("RABBITMQ_", "ERL_"))}
        env |= {
            "PATH": f"{software.erlang}:{env.get('PATH', '/usr/bin:/bin')}",
            "HOME": str(home / "home"),
            "RABBITMQ_NODENAME": "posthouse@localhost",
            "RABBITMQ_MNESIA_BASE": str(home / "mnesia"),
            "RABBITMQ_LOG_BASE": str(home / "log"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "enabled_plugins"),
            "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(home / "advanced.config"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_GENERATED_CONFIG_DIR": str(home / "generated"),
            "RABBITMQ_SCHEMA_DIR": str(home / "schema"),
            "RABBITMQ_FEATURE_FLAGS_FILE": str(home / "feature_flags"),
            "RABBITMQ_PID_FILE": str(home / "pid"),
            "RABBITMQ_DIST_PORT": str(self.ports.distribution),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            # The script then becomes the broker itself: one process, one number, signals arrive.
            "RUNNING_UNDER_SYSTEMD": "1",
            "ERL_EPMD_PORT": str(self.ports.epmd),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            # An epmd started by Erlang itself would outlive us.
            "ERL_AFLAGS": "-start_epmd false",
            "ERL_CRASH_DUMP": str(self.instance.logs / "erl_crash.dump"),
            "ERL_CRASH_DUMP_SECONDS": "0",
            "LANG": "C.UTF-8",
            "LC_ALL": "C.UTF-8",
        }
        if software.plugins:
            env["RABBITMQ_PLUGINS_DIR"] = str(software.plugins)
        return env


def _version(software: Software) -> tuple[int, ...]:
    """From a file name that every RabbitMQ has; (3,) when it has not."""
    places = [software.plugins] if software.plugins else []
    places.append(software.server.resolve().parent.parent / "plugins")
    for place in places:
        for found in place.glob("rabbit-[0-9]*"):
            return tuple(int(part) for part in re.findall(r"\d+", found.name.partition("-")[2])[:3])
    return (3,)


def find(instance: Instance) -> Software | None:
    """The RabbitMQ of this instance: unpacked in this checkout, else one of the machine."""
    if rabbitmq4.is_chosen(instance):
        return _unpacked(_place(instance))
    return _unpacked(_place(instance)) or _installed()


def ensure(instance: Instance, apt: Apt) -> str:
    """Have a RabbitMQ to start; answers in a word where it came from."""
    place = _place(instance)
    if _unpacked(place):
        _make_it_run(place)
        return "ready"
    if not rabbitmq4.is_chosen(instance) and not apt.present():
        if _installed():
            return "the machine's own"
        raise Failure(
            "There is no RabbitMQ here and no apt-get to fetch one: install it (`brew install rabbitmq` or "
            "your system's package rabbitmq-server), or set POSTHOUSE_AMQP_URL and POSTHOUSE_MANAGEMENT_URL."
        )
    if re.search(r"\s", str(place)):
        raise Failure(
            f"RabbitMQ cannot run from a path with a space in it: move the checkout from {instance.root}."
        )
    new = place.with_name(f"{place.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    if rabbitmq4.is_chosen(instance):
        rabbitmq4.unpack(instance, apt, new)
    else:
        apt.unpack("rabbitmq-server", "erlang|rabbitmq", new)
    _make_it_run(new)
    _try_erlang(new, instance)
    shutil.rmtree(place, ignore_errors=True)
    new.rename(place)
    _make_it_run(place)
    return "unpacked"


def _place(instance: Instance) -> Path:
    return instance.servers / ("rabbitmq4" if rabbitmq4.is_chosen(instance) else "rabbitmq")


def version_without_4(instance: Instance) -> tuple[int, ...]:
    """Of the RabbitMQ that runs here when no series is chosen; empty when there is none."""
    software = _unpacked(instance.servers / "rabbitmq") or _installed()
    return _version(software) if software else ()


def _make_it_run(tree: Path) -> None:
    """What was unpacked knows where it lies; again at each start, since a checkout may be moved."""
    _say_where_erlang_is(tree)
    rabbitmq4.say_where_libraries_are(tree)


def _unpacked(place: Path) -> Software | None:
    server = next(place.glob("usr/lib/rabbitmq/lib/*/sbin/rabbitmq-server"), None)
    if server is None:
        return None
    return Software(server, place / "usr/lib/erlang/bin", server.parent.parent / "plugins")


def _installed() -> Software | None:
    # Debian's /usr/sbin/rabbitmq-server insists on root and a system user; the one it calls does not.
    server = find_program(
        "rabbitmq-server", places=("/usr/lib/rabbitmq/bin", "/opt/homebrew/sbin", "/usr/local/sbin")
    )
    epmd = find_program("epmd", places=("/usr/lib/erlang/bin",))
    if server is None or epmd is None:
        return None
    return Software(server, epmd.parent)


def _say_where_erlang_is(tree: Path) -> None:
    """Debian's `erl` has its own directory written into it."""
    home = tree / "usr/lib/erlang"
    for script in tree.glob("usr/lib/erlang/**/bin/erl"):
        old = script.read_text()
        new = re.sub(r"(?m)^(\s*ROOTDIR=)/.*$", lambda found: f"{found[1]}{home}", old)
        if new != old:
            script.write_text(new)


def _try_erlang(tree: Path, instance: Instance) -> None:
    """A library of the system that is missing shows here, by name, and not in the middle of a start."""
    answer = subprocess.run(
        [tree / "usr/lib/erlang/bin/erl", "-noinput", "-eval", "ok = crypto:start(), halt(0)."],
        capture_output=True,
        text=True,
        env=plain_environment() | {"HOME": str(instance.servers), "ERL_CRASH_DUMP_SECONDS": "0"},
        cwd=instance.servers,
        check=False,
    )
    if answer.returncode != 0:
        words = (answer.stderr or answer.stdout).strip().splitlines()
        raise Failure(f"Erlang does not run here: {words[-1] if words else answer.returncode}")
