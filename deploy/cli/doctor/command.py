"""The command: each check at once, then what was found, and what was mended."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Mapping
from typing import Any

from deploy.cli.doctor import broker, database, gateway, machine, mending
from deploy.cli.doctor.finding import Check, Finding
from deploy.cli.doctor.mending import Mended

SECONDS = 30.0
SETTLE_SECONDS, LOOK_SECONDS = 20.0, 1.0
CHECKS: dict[str, Check] = {
    "gateway": gateway.look,
    "certificate": gateway.certificate,
    "postgres": database.look,
    "accounts": database.roles,
    "partitions": database.partitions,
    "rabbitmq": broker.nodes,
    "topology": broker.topology_as_declared,
    "rights": broker.rights,
    "queues": broker.states,
    "redis": machine.redis,
    "clocks": machine.clocks,
    "disk": machine.disk,
    "backup": machine.backup,
}


def add_parsers(commands: Any) -> None:
    """The command `doctor`."""
    words = "look for what is wrong and say what to do"
    parser = commands.add_parser("doctor", help=words, description=f"{words}; exit status 1: something is")
    parser.add_argument(
        "--mend",
        action="store_true",
        help="do what is safe: make missing queues, bindings, rights and partitions, elect leaders",
    )
    parser.add_argument("--json", action="store_true", help="for scripts")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace, environment: Mapping[str, str]) -> int:
    findings, mended = asyncio.run(_through(environment, mend=options.mend))
    is_well = not any(one.is_wrong for one in findings)
    if options.json:
        told = [{**vars(one), "wrong": one.is_wrong} for one in findings]
        work = {"mended": mended.done, "not_mended": mended.failed}
        print(json.dumps({"healthy": is_well, **work, "findings": told}, indent=1))
    else:
        _print(findings, mended)
    return int(not is_well)


async def _through(environment: Mapping[str, str], *, mend: bool) -> tuple[list[Finding], Mended]:
    findings = await examine(environment)
    wanted = {one.mend for one in findings if one.mend}
    if not mend or not wanted:
        return findings, Mended()
    mended = await mending.mend(wanted, environment)
    end = asyncio.get_running_loop().time() + SETTLE_SECONDS
    while True:  # services take from a queue a moment after it is there again
        findings = await examine(environment)
        is_late = asyncio.get_running_loop().time() > end
        if is_late or mended.failed or not any(one.is_wrong for one in findings):
            return findings, mended
        await asyncio.sleep(LOOK_SECONDS)


def _print(findings: list[Finding], mended: Mended) -> None:
    for words in mended.done:
        print(f"  mended {words}")
    for words in mended.failed:
        print(f"  not mended {words}")
    for one in findings:
        print(f"  {'WRONG' if one.is_wrong else 'ok':<6} {one.part:<12} {one.words}")
        if one.is_wrong:
            print(f"  {'':<6} {'':<12} {one.advice}")


async def examine(environment: Mapping[str, str]) -> list[Finding]:
    """Every check; one that cannot be made is a finding too."""
    found = await asyncio.gather(*(_checked(part, check, environment) for part, check in CHECKS.items()))
    return [one for each in found for one in each]


async def _checked(part: str, check: Check, environment: Mapping[str, str]) -> list[Finding]:
    try:
        async with asyncio.timeout(SECONDS):
            return await check(environment)
    except KeyError as error:
        return [Finding(part, f"{error.args[0]} is not set", "Start Posthouse: ./posthouse up")]
    except Exception as error:
        words = f"does not answer: {str(error) or type(error).__name__}"
        advice = f"Look at ./posthouse status and ./posthouse logs {LOGS.get(part, part)}"
        return [Finding(part, words, advice)]


LOGS = {
    "accounts": "postgres",
    "partitions": "postgres",
    "topology": "rabbitmq",
    "rights": "rabbitmq",
    "queues": "rabbitmq",
    "clocks": "postgres",
}
"""Whose log tells more, where that is not the part itself."""
