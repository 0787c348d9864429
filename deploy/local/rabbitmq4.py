"""RabbitMQ 4 on a machine whose packages are older: Debian 13's, on the libraries it was built for."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path

from deploy.local.debian import Apt, Release
from deploy.local.errors import Failure
from deploy.local.files import write
from deploy.local.instance import Instance
from deploy.local.settings import Settings

NAME = "POSTHOUSE_RABBITMQ"
SERIES = "4"
DEBIAN = "trixie"
# What Erlang's programs and its crypto are linked with, and what these are linked with in turn.
FAMILY = r"erlang|rabbitmq|lib|zlib1g$"
REAL = ".elf"


def is_chosen(instance: Instance) -> bool:
    """Whether this instance runs it: a setting says so, or its data was made by it."""
    named = instance.settings.get(NAME)
    if named not in ("", SERIES):
        raise Failure(f"{NAME} is {SERIES}, or empty for this machine's own, not {named!r}.")
    return bool(named) or _record(instance).exists()


def chosen(settings: Mapping[str, str] | Settings) -> dict[str, str]:
    """The setting, for whoever is started with nothing else of ours in its environment."""
    series = settings.get(NAME)
    return {NAME: series} if series else {}


def keep_to_it(instance: Instance, others: tuple[int, ...]) -> None:
    """Write down that the data is of this series; raises Failure when it is of an older one, which 4 cannot
    open. `others` is the version that runs when this one is not chosen.
    """
    record = _record(instance)
    if record.exists():
        return
    if others < (4,) and any((record.parent / "mnesia").glob("*")):
        raise Failure(
            f"RabbitMQ 4 cannot open what an older one keeps in {record.parent}: ./posthouse backup FILE "
            f"without {NAME}, then with it ./posthouse restore FILE in another POSTHOUSE_LOCAL."
        )
    write(record, SERIES + "\n")


def unpack(instance: Instance, apt: Apt, into: Path) -> None:
    """Debian 13's broker, its Erlang, and the libraries of both."""
    if not apt.present():
        raise Failure(f"{NAME}={SERIES} takes Debian's package, and there is no apt-get here.")
    release = Release(apt, DEBIAN, instance.servers / f"apt-{DEBIAN}", instance.logs / "apt.log")
    release.unpack_missing(("rabbitmq-server",), FAMILY, into)
    for useless in ("usr/share", "usr/lib/python3"):
        shutil.rmtree(into / useless, ignore_errors=True)


def say_where_libraries_are(tree: Path) -> None:
    """Each program of Erlang becomes a script that starts it with the loader and the libraries beside it.

    The machine's own C library is too old for them, and the place of the loader is written into a program.
    What they start in turn, as `df`, runs on the machine's own again.
    """
    loader = next(tree.glob("usr/lib/*/ld-linux-*.so.*"), None)
    if loader is None:
        return
    for program in list(tree.glob("usr/lib/erlang/**/bin/*")):
        if not program.is_symlink() and _is_binary(program):
            program.rename(program.with_name(program.name + REAL))
    for real in tree.glob(f"usr/lib/erlang/**/bin/*{REAL}"):
        start, place, whole = (shlex.quote(str(path)) for path in (loader, loader.parent, real))
        script = f'#!/bin/sh\nexec {start} --library-path {place} --argv0 "$0" {whole} "$@"\n'
        program = real.with_suffix("")
        if not program.exists() or program.read_text() != script:
            write(program, script, 0o755)


def _record(instance: Instance) -> Path:
    return instance.data / "rabbitmq" / "series"


def _is_binary(path: Path) -> bool:
    if not path.is_file() or path.suffix == REAL:
        return False
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"
