"""`./posthouse restore FILE`: what a backup holds, into an instance that holds nothing."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

from deploy import archive
from deploy.archive import BadArchive, Reader
from deploy.identity import fingerprint
from deploy.local.console import Console
from deploy.local.errors import Failure, tail
from deploy.local.files import try_lock, write
from deploy.local.instance import Instance
from deploy.local.ports import Ports
from deploy.local.servers import STOP_ORDER, Servers, install
from deploy.local.services import base_environment
from deploy.local.settings import SECRET_KEY, read_file
from deploy.local.status import supervisor_of
from deploy.local.supervisor import Supervisor
from deploy.local.up import stop_left_over

# Where things are on one machine: another one has its own. Kept in the settings file as remarks.
OF_THE_MACHINE = frozenset(
    f"POSTHOUSE_{name}"
    for name in (
        *("LOCAL", "ENV_FILE", "DATA", "HOST", "PORT", "LISTEN", "MQTT_HOST", "MQTT_PORT"),
        *("AMQP_URL", "MANAGEMENT_URL", "MQTT_URL", "DATABASE_URL", "REDIS_URL", "TLS_CERT", "TLS_KEY"),
    )
)
START_SECONDS = 60.0


def restore(instance: Instance, file: Path, console: Console, *, instead: bool, look_only: bool) -> int:
    """Check the file, then fill the instance from it; raises Failure, and nothing is half restored."""
    began = time.monotonic()
    try:
        with archive.opened(file) as backup:
            _check(backup, file, instance.root, console)
            if not look_only:
                _fill(instance, backup, file, console, instead=instead)
    except BadArchive as error:
        raise Failure(f"{file} is not a backup that can be used: {error}.") from None
    except OSError as error:
        raise Failure(f"{file}: {error.strerror or error}.") from None
    if look_only:
        console.line("The file is whole. Nothing was changed.")
    else:
        console.line(f"\nRestored in {time.monotonic() - began:.1f} s. Start it: ./posthouse up")
    return 0


def _check(backup: Reader, file: Path, root: Path, console: Console) -> None:
    """Before anything is touched: can this version read it, and is it as it was written?"""
    if backup.format > archive.FORMAT:
        raise Failure(f"{file} was made by a newer version of Posthouse: update this checkout first.")
    manifest = backup.manifest
    if unknown := _unknown_migrations(manifest, root):
        raise Failure(
            f"{file} was made by another version of Posthouse, commit {_commit(manifest)}: this checkout "
            f"does not have its migration {unknown}. Update this checkout first."
        )
    with console.step("check") as step:
        backup.check(_progress(sum(facts["bytes"] for facts in backup.files.values())))
        step.words = "every checksum is right"
    for line in described(manifest):
        console.line(f"  {line}")


def described(manifest: Mapping[str, Any]) -> list[str]:
    """What a backup is, for people."""
    tables = manifest["tables"]
    rows = sum(one["rows"] for one in tables.values())
    lines = [
        f"as of {manifest['taken_at']}, commit {_commit(manifest)}, PostgreSQL {manifest['postgres']}",
        f"{rows:,} rows in {len(tables)} tables; the secret key is {'' if manifest['key'] else 'NOT '}in it",
    ]
    waiting = ", ".join(f"{count:,} in {queue}" for queue, count in manifest["waiting"].items())
    return lines + ([f"not contained: messages that waited in queues: {waiting}"] if waiting else [])


def _commit(manifest: Mapping[str, Any]) -> str:
    return str(manifest.get("commit") or "unknown")


def _unknown_migrations(manifest: Mapping[str, Any], root: Path) -> str:
    """The first one that is not here, or not the same."""
    for service, name, checksum in manifest["migrations"]:
        shared = name.startswith("shared/")
        place = root / ("shared/db/migrations" if shared else f"services/{service}/migrations")
        file = place / name.removeprefix("shared/")
        if not file.exists() or hashlib.sha256(file.read_bytes()).hexdigest() != checksum:
            return f"{name} of {service}"
    return ""


def _fill(instance: Instance, backup: Reader, file: Path, console: Console, *, instead: bool) -> None:
    if supervisor_of(instance):
        raise Failure("Posthouse runs here: ./posthouse down first.")
    if instance.holds_data() and not instead:
        raise Failure(f"There is data in {instance.data} already. With --replace it is put aside and stays.")
    key = _key(instance, backup, instead=instead)
    with _alone(instance.run / "supervisor.lock"), _alone(instance.data / "lock"):
        stop_left_over(instance, console)
        shutil.rmtree(instance.restoring, ignore_errors=True)
        install(instance, console)
        try:
            asyncio.run(_database(instance, file.resolve(), key, console))
            _put_in_place(instance, backup, key, console)
        except asyncio.CancelledError:
            console.line("Interrupted: nothing was restored.")
            raise KeyboardInterrupt from None
        finally:
            shutil.rmtree(instance.restoring, ignore_errors=True)


def _alone(lock: Path) -> IO[str]:
    held = try_lock(lock)
    if held is None:
        raise Failure(f"Posthouse starts, runs or is being restored in {lock.parent}: wait for its end.")
    return held


def _key(instance: Instance, backup: Reader, *, instead: bool) -> str:
    """The key all of it was made with."""
    kept = read_settings(backup).get(SECRET_KEY, "")
    here = instance.settings.get(SECRET_KEY)
    fits = [key for key in (kept, here) if key and fingerprint(key) == backup.manifest["key_fingerprint"]]
    if not fits:
        raise Failure(
            f"The secret key is not in the backup, and here it is {'another one' if here else 'not set'}: "
            f"put the right {SECRET_KEY} into {instance.settings.file}."
        )
    from_file = instance.settings.sources.get(SECRET_KEY) == str(instance.settings.file)
    if here and here != fits[0] and not (from_file and instead):
        where = instance.settings.file if from_file else "the environment"
        raise Failure(
            f"{SECRET_KEY} in {where} is another one than that of the backup: take it away from there"
            + (", or use --replace, which keeps the file." if from_file else ".")
        )
    return fits[0]


def read_settings(backup: Reader) -> dict[str, str]:
    """The settings in a backup."""
    lines = backup.read(archive.SETTINGS).decode().splitlines()
    pairs = (line.partition("=") for line in lines if line.strip() and not line.lstrip().startswith("#"))
    return {name.strip(): value.strip() for name, _, value in pairs}


async def _database(instance: Instance, file: Path, key: str, console: Console) -> None:
    """Into a directory beside the data, or into the database that the settings name."""
    loop, me = asyncio.get_running_loop(), asyncio.current_task()
    assert me is not None
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, me.cancel)
    settings = instance.settings
    values = {**settings.values, "POSTHOUSE_DATA": str(instance.restoring), SECRET_KEY: key}
    aside = replace(instance, settings=replace(settings, values=MappingProxyType(values)))
    servers = Servers(aside, Ports(aside.run / "ports.json"), key)
    supervisor = Supervisor(aside, console)
    aside.data.mkdir(parents=True)
    try:
        if postgres := servers.postgres:
            await supervisor.start([await asyncio.to_thread(postgres.prepare)], START_SECONDS)
        with console.step("database") as step:
            await _refill(aside, servers, key, file)
            step.words = "restored and compared"
    finally:
        await supervisor.stop(STOP_ORDER)
        instance.state.unlink(missing_ok=True)


async def _refill(instance: Instance, servers: Servers, key: str, file: Path) -> None:
    log = instance.logs / "restore.log"
    with log.open("ab") as output:
        child = await asyncio.create_subprocess_exec(
            *(str(instance.python), "-m", "deploy.refill", str(file)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=base_environment(instance, key) | servers.addresses.environment(),
            cwd=instance.root,
        )
    try:
        code = await child.wait()
    except asyncio.CancelledError:
        child.terminate()
        await child.wait()
        raise
    if code != 0:
        raise Failure((tail(log, 1) or [f"exit code {code}"])[0], log)


def _put_in_place(instance: Instance, backup: Reader, key: str, console: Console) -> None:
    """Settings first: with data and without its key nothing starts. The data appears with one rename."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    new, data = instance.restoring, instance.data
    write(new / "key-fingerprint", fingerprint(key) + "\n")
    write(new / archive.BROKER, backup.read(archive.BROKER).decode())
    _write_settings(instance.settings.file, read_settings(backup), key, stamp, console)
    if instance.holds_data():
        before = data.with_name(f"{data.name}.before-{stamp}")
        data.rename(before)
        console.line(f"  What was here before is in {before}: remove it when you no longer need it.")
    else:
        shutil.rmtree(data, ignore_errors=True)
    new.rename(data)


def _write_settings(file: Path, kept: Mapping[str, str], key: str, stamp: str, console: Console) -> None:
    """What is set here stays; the rest as it was kept, but for what is of another machine."""
    here = read_file(file)
    lines = file.read_text().splitlines() if file.exists() else []
    lines = [line for line in lines if line.partition("=")[0].strip() != SECRET_KEY]
    others = {name: value for name, value in kept.items() if name not in here and name != SECRET_KEY}
    if others:
        lines.append(f"# From the backup restored at {stamp}; those of the other machine are remarks.")
    lines += [f"{'# ' if name in OF_THE_MACHINE else ''}{name}={value}" for name, value in others.items()]
    lines += ["# Part of every backup: without it, encrypted keys stay closed.", f"{SECRET_KEY}={key}"]
    if here and here.get(SECRET_KEY, key) != key:
        before = file.with_name(f"{file.name}.before-{stamp}")
        file.rename(before)
        console.line(f"  The settings that were here before are in {before}.")
    write(file, "".join(f"{line}\n" for line in lines))
    console.line(f"  {file} holds the secret key; others may not read it.")


def _progress(total: int) -> Callable[[int], None]:
    """A line on a terminal for what takes long."""
    drawn = time.monotonic()

    def at(done: int) -> None:
        nonlocal drawn
        if sys.stderr.isatty() and time.monotonic() - drawn > 0.1:
            drawn = time.monotonic()
            sys.stderr.write(f"\r  check              {done / max(total, 1):.0%}\x1b[K\r")
            sys.stderr.flush()

    return at
