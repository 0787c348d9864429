"""The command line: arguments in, exit status out (0 all done, 1 some lines refused, 2 an error)."""

from __future__ import annotations

import argparse
import asyncio
import getpass
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from deploy.cli import account, backup, doctor
from deploy.cli.client import Credentials, Patience, Problem, connected
from deploy.cli.errors import Stopped
from deploy.cli.exporting import Export, destination
from deploy.cli.importing import Import, Outcome, Reading, Report, is_id
from deploy.cli.progress import Progress
from deploy.cli.trust import trust

ALL_DONE, SOME_REFUSED, ERROR, INTERRUPTED = 0, 1, 2, 130
SHOWN_REFUSALS = 20
DEFAULT_URL = "http://127.0.0.1:8080"
WHO = {
    "name": "account; its password from POSTHOUSE_PASSWORD, else asked for (POSTHOUSE_NAME)",
    "token": "access token (POSTHOUSE_TOKEN)",
    "key": "read or write key of the dataset, which is named by its id (POSTHOUSE_KEY)",
}


def main(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> int:
    """Run one command."""
    options = _parser(environment).parse_args(_joined(arguments))
    try:
        command: Callable[[argparse.Namespace, Mapping[str, str]], int] = options.run
        return command(options, environment)
    except Stopped as stopped:
        return _failed(str(stopped))
    except Problem as problem:
        return _failed(problem.text())
    except KeyboardInterrupt:
        return _failed("Interrupted; the same command goes on where it stopped.", INTERRUPTED)
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - what reads us has gone away
        return ERROR


def _joined(arguments: Sequence[str]) -> list[str]:
    """`--timezone -08:00` as `--timezone=-08:00`: argparse would take the offset for an option."""
    joined: list[str] = []
    for argument in arguments:
        if joined and joined[-1] == "--timezone":
            joined[-1] += "=" + argument
        else:
            joined.append(argument)
    return joined


def _parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="posthouse", description="Talk to a running Posthouse.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    both = _options(environment)
    into = commands.add_parser("import", parents=[both], help="a CSV file into a dataset")
    into.add_argument("file", type=Path, metavar="FILE.csv", help="UTF-8; its first line names the columns")
    into.add_argument("--label", default="", help="imports a file again that was imported before")
    into.add_argument("--report", type=Path, metavar="FILE", help="write refused lines there, as CSV")
    into.set_defaults(run=_import)
    out = commands.add_parser("export", parents=[both], help="a dataset as CSV")
    out.add_argument("--output", type=Path, metavar="FILE", help="instead of standard output")
    out.add_argument("--final-newline", action="store_true", help="end the last line with a line break too")
    out.set_defaults(run=_export)
    account.add_parsers(commands)
    doctor.add_parsers(commands)
    backup.add_parsers(commands)
    return parser


def _options(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False)
    add, url = parser.add_argument, environment.get("POSTHOUSE_URL", DEFAULT_URL)
    add("--dataset", required=True, metavar="NAME", help="name or id; import makes it when there is none")
    add("--time-column", default="", metavar="NAME", help="the column of times (at)")
    add("--time-format", default="", metavar="FORMAT", help="as in strptime (RFC 3339)")
    add("--timezone", default="", metavar="ZONE", help="of times without offset: Europe/Berlin, -08:00")
    add("--give-up", type=float, default=60.0, metavar="SECONDS", help="wait so long for the server (60)")
    add("--url", default=url, help="address of the server (POSTHOUSE_URL)")
    add = parser.add_argument_group("who is calling (one of)").add_argument
    for name, words in WHO.items():
        add(f"--{name}", default=environment.get(f"POSTHOUSE_{name.upper()}", ""), help=words)
    return parser


def _import(options: argparse.Namespace, environment: Mapping[str, str]) -> int:
    credentials, certificate = _credentials(options, environment), trust(_url(options), environment)
    progress = Progress(options.dataset)
    work = Import(
        options.file, options.dataset, _reading(options), options.label, progress, Report(options.report)
    )

    async def run() -> None:
        patience = Patience(options.give_up, progress.say)
        async with connected(_url(options), credentials, patience, certificate) as server:
            await work.run(server)

    try:
        asyncio.run(run())
    finally:
        _tell(work.outcome, progress.seconds, options.report)
    return SOME_REFUSED if work.outcome.refused else ALL_DONE


def _export(options: argparse.Namespace, environment: Mapping[str, str]) -> int:
    credentials, certificate = _credentials(options, environment), trust(_url(options), environment)

    async def run() -> int:
        patience = Patience(options.give_up)
        async with connected(_url(options), credentials, patience, certificate) as server:
            return await Export(server, options.dataset, _reading(options), options.final_newline).run(out)

    with destination(options.output) as out:
        size = asyncio.run(run())
    if options.output is not None:
        print(f"{options.output}: {size:,} bytes", file=sys.stderr)
    return ALL_DONE


def _tell(outcome: Outcome, seconds: float, report: Path | None) -> None:
    if not outcome.lines:
        return
    lines = [f"line {one.line}: {one.code}: {one.message}" for one in outcome.refused[:SHOWN_REFUSALS]]
    if (more := len(outcome.refused) - SHOWN_REFUSALS) > 0:
        lines.append(f"and {more:,} more refused lines" + ("" if report else "; --report FILE keeps them"))
    if outcome.resumed:
        lines.append(f"an earlier run had come to line {outcome.resumed:,} of {outcome.lines:,}")
    if outcome.skipped:
        lines.append(f"{outcome.skipped:,} readings had been stored by an earlier run meanwhile")
    words = f"{outcome.stored:,} readings stored, {len(outcome.refused):,} lines refused"
    print("\n".join([*lines, f"{words}, {seconds:.1f} s"]), file=sys.stderr)


def _reading(options: argparse.Namespace) -> Reading:
    return Reading(options.time_column, options.time_format, options.timezone)


def _url(options: argparse.Namespace) -> str:
    if not options.url.startswith(("http://", "https://")):
        raise Stopped(f"--url {options.url!r} does not begin with http:// or https://.")
    return str(options.url)


def _credentials(options: argparse.Namespace, environment: Mapping[str, str]) -> Credentials:
    """The first that is given; a key opens one dataset, which it cannot find by name."""
    if options.token:
        return Credentials(token=options.token)
    if options.key:
        if not is_id(options.dataset):
            raise Stopped("With --key, name the dataset by its id.")
        return Credentials(key=options.key)
    if not options.name:
        raise Stopped("Say who is calling: --name, --token or --key.")
    password = environment.get("POSTHOUSE_PASSWORD") or getpass.getpass(f"Password of {options.name}: ")
    return Credentials(name=options.name, password=password)


def _failed(words: str, status: int = ERROR) -> int:
    print(f"posthouse: {words}", file=sys.stderr)
    return status
