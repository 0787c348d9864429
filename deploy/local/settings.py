"""Where a setting comes from: the environment, then `posthouse.env`, then its default."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from deploy.identity import new_secret_key
from deploy.local.errors import Failure

PREFIX = "POSTHOUSE_"
SECRET_KEY = "POSTHOUSE_SECRET_KEY"


@dataclass(frozen=True)
class Setting:
    """One environment variable of the launcher; services describe theirs in `services/<name>/settings.py`."""

    name: str
    default: str
    text: str
    secret: bool = False


TABLE = (
    Setting("POSTHOUSE_LOCAL", ".local", "directory of this instance: data, logs, process ids, addresses"),
    Setting(
        "POSTHOUSE_ENV_FILE", "posthouse.env", "file of settings; beside the data when POSTHOUSE_LOCAL is set"
    ),
    Setting("POSTHOUSE_DATA", "", "directory of the servers' data; empty: <POSTHOUSE_LOCAL>/data"),
    Setting(
        SECRET_KEY, "", "opens keys kept encrypted and makes internal passwords; made on first start", True
    ),
    Setting(
        "POSTHOUSE_LISTEN",
        "127.0.0.1",
        "address the web and MQTT ports listen on; 0.0.0.0 or :: for all; nothing else leaves loopback",
    ),
    Setting("POSTHOUSE_HOST", "", "address of the web port when it is another one"),
    Setting(
        "POSTHOUSE_PORT", "", "web port; empty: 8080 when it is free, else another, kept for later starts"
    ),
    Setting("POSTHOUSE_MQTT_HOST", "", "address of the MQTT port when it is another one"),
    Setting("POSTHOUSE_MQTT_PORT", "", "MQTT port; empty: a free one, kept for later starts"),
    Setting(
        "POSTHOUSE_TLS_CERT",
        "",
        "PEM file with the certificate of the web port and those up to its root; makes it https",
    ),
    Setting("POSTHOUSE_TLS_KEY", "", "PEM file with the certificate's key; empty: in the same file"),
    Setting(
        "POSTHOUSE_HTTP_PORT",
        "",
        "with TLS: port of plain HTTP for devices; others are sent to https; empty: none",
    ),
    Setting(
        "POSTHOUSE_SCALE", "", "processes of each service, as in gateway=2,ingest=3; one each when not named"
    ),
    Setting(
        "POSTHOUSE_RABBITMQ",
        "",
        "4: RabbitMQ 4 of Debian 13, unpacked with its own libraries; empty: that of this machine's release",
    ),
    Setting(
        "POSTHOUSE_AMQP_URL", "", "administrator's address of a RabbitMQ to use instead of our own", True
    ),
    Setting("POSTHOUSE_MANAGEMENT_URL", "", "its management address, with account", True),
    Setting("POSTHOUSE_MQTT_URL", "", "its MQTT address"),
    Setting(
        "POSTHOUSE_DATABASE_URL", "", "superuser's address of a PostgreSQL to use instead of our own", True
    ),
    Setting("POSTHOUSE_REDIS_URL", "", "address of a Redis or Valkey to use instead of our own", True),
    Setting("POSTHOUSE_START_SECONDS", "60", "how long a server or service may take to be ready"),
    Setting("POSTHOUSE_LOG_MEGABYTES", "50", "a log file is put aside as <name>.log.1 when it is larger"),
)


@dataclass(frozen=True)
class Settings:
    """All `POSTHOUSE_*` values in force, and for each where it came from."""

    values: Mapping[str, str]
    sources: Mapping[str, str]
    file: Path
    local: Path

    def get(self, name: str) -> str:
        """The value, else the default from the table, else an empty text."""
        return self.values.get(name) or _DEFAULTS.get(name, "")

    def number(self, name: str) -> float:
        """A value that must be a number."""
        try:
            return float(self.get(name))
        except ValueError:
            raise Failure(f"{name} must be a number, not {self.get(name)!r}.") from None


_DEFAULTS = {setting.name: setting.default for setting in TABLE}


def load(root: Path, environment: Mapping[str, str] = os.environ) -> Settings:
    """Read both places; `POSTHOUSE_LOCAL` and `POSTHOUSE_ENV_FILE` come from the environment only."""
    local = _directory(root, environment.get("POSTHOUSE_LOCAL") or ".local")
    file = _settings_file(root, local, environment)
    values, sources = {}, {}
    for name, value in read_file(file).items():
        values[name], sources[name] = value, str(file)
    for name, value in environment.items():
        if name.startswith(PREFIX) and value:
            values[name], sources[name] = value, "environment"
    return Settings(values, sources, file, local)


def _directory(root: Path, text: str) -> Path:
    return (root / Path(text).expanduser()).resolve()


def _settings_file(root: Path, local: Path, environment: Mapping[str, str]) -> Path:
    named = environment.get("POSTHOUSE_ENV_FILE")
    if named:
        return _directory(root, named)
    home = root if local == (root / ".local").resolve() else local
    return home / "posthouse.env"


def read_file(path: Path) -> dict[str, str]:
    """`KEY=VALUE` lines; empty lines and lines that begin with `#` are skipped."""
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"{path} cannot be read: {error}.") from None
    values = {}
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        name, equals, value = text.partition("=")
        if not equals or not name.strip().startswith(PREFIX):
            raise Failure(f"{path}, line {number}: expected {PREFIX}NAME=value.")
        values[name.strip()] = _unquoted(value.strip())
    return values


def _unquoted(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
        return value[1:-1]
    return value


def secret_key(settings: Settings) -> str:
    """The secret key in force; made, and written to the settings file, when there is none."""
    if known := settings.get(SECRET_KEY):
        return known
    made = new_secret_key()
    settings.file.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(settings.file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "a") as file:
        if file.tell() > 0:
            file.write("\n")
        file.write("# Made on first start. Part of every backup: without it, encrypted keys stay closed.\n")
        file.write(f"{SECRET_KEY}={made}\n")
    settings.file.chmod(0o600)
    return made


def own_settings(settings: Settings) -> list[tuple[str, str, str]]:
    """Name, value as it may be shown, and source: the launcher's settings, then every other one given."""
    known = {setting.name: setting for setting in TABLE}
    rows = [_shown(setting, settings) for setting in TABLE]
    others = sorted(set(settings.values) - set(known))
    return rows + [_shown(Setting(name, "", "", secret=True), settings) for name in others]


def _shown(setting: Setting, settings: Settings) -> tuple[str, str, str]:
    value = settings.get(setting.name)
    if setting.secret and value:
        value = without_password(value) if "://" in value else "(hidden)"
    return setting.name, value, settings.sources.get(setting.name, "default")


def without_password(url: str) -> str:
    """The same address, safe to print."""
    parts = urlsplit(url)
    account, at, place = parts.netloc.rpartition("@")
    name = account.partition(":")[0]
    return urlunsplit(parts._replace(netloc=f"{name}{at}{place}", query="", fragment=""))


def scale_of(text: str) -> dict[str, int]:
    """`gateway=2,ingest=3` or the same with spaces between."""
    counts = {}
    for part in text.replace(",", " ").split():
        name, _, number = part.partition("=")
        if not name or not number.isdecimal() or not 0 < int(number) <= 64:
            raise Failure(f"scale: {part!r} is not <service>=<number from 1 to 64>, as in gateway=2.")
        counts[name] = int(number)
    return counts
