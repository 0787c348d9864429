"""`doctor`: looks at every part of a running Posthouse and says what is wrong and what to do."""

from __future__ import annotations

import argparse
import asyncio
import shutil
import ssl
import stat
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from cryptography.x509 import load_pem_x509_certificate

FREE_BYTES = 1 << 30
FULL = 0.8  # of what a queue may hold, above which the gateway turns commands away
SECONDS = 10.0
RENEW_BEFORE = timedelta(days=14)


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; `advice` is empty when it is as it should be."""

    part: str
    words: str
    advice: str = ""


Check = Callable[[Mapping[str, str]], Awaitable[list[Finding]]]


def add_parsers(commands: Any) -> None:
    """The command `doctor`."""
    parser = commands.add_parser("doctor", help="look for what is wrong and say what to do")
    parser.set_defaults(run=_run)


def _run(_: argparse.Namespace, environment: Mapping[str, str]) -> int:
    findings = asyncio.run(examine(environment))
    for one in findings:
        print(f"  {'WRONG' if one.advice else 'ok':<6} {one.part:<12} {one.words}")
        if one.advice:
            print(f"  {'':<6} {'':<12} {one.advice}")
    return int(any(one.advice for one in findings))


async def examine(environment: Mapping[str, str]) -> list[Finding]:
    """Every check; one that cannot be made is a finding too."""
    findings: list[Finding] = []
    for part, check in CHECKS.items():
        try:
            async with asyncio.timeout(SECONDS):
                findings += await check(environment)
        except KeyError as error:
            findings.append(Finding(part, f"{error.args[0]} is not set", "Start Posthouse: ./posthouse up"))
        except Exception as error:
            words = f"does not answer: {str(error) or type(error).__name__}"
            findings.append(Finding(part, words, f"Look at ./posthouse status and ./posthouse logs {part}"))
    return findings


async def _gateway(environment: Mapping[str, str]) -> list[Finding]:
    url = environment["POSTHOUSE_URL"] + "/readyz"
    # Nothing secret is asked; the certificate is looked at by itself.
    async with aiohttp.ClientSession() as http, http.get(url, ssl=False) as answer:
        missing = (await answer.json()).get("missing", {})
    if not missing:
        return [Finding("gateway", "ready")]
    return [
        Finding("gateway", f"waits for {n}: {why}", f"./posthouse logs {n}") for n, why in missing.items()
    ]


async def _certificate(environment: Mapping[str, str]) -> list[Finding]:
    file = environment.get("POSTHOUSE_TLS_CERT")
    return await asyncio.to_thread(_shown, environment["POSTHOUSE_URL"], Path(file)) if file else []


def _shown(url: str, file: Path) -> list[Finding]:
    parts = urlsplit(url)
    shown = ssl.get_server_certificate((parts.hostname or "", parts.port or 443), timeout=SECONDS)
    return judged(shown.encode(), file.read_bytes(), datetime.now(UTC))


def judged(shown: bytes, kept: bytes, now: datetime) -> list[Finding]:
    """What is to be said of the certificate the gateways show, beside the one in the file."""
    used = load_pem_x509_certificate(shown)
    words = f"good until {used.not_valid_after_utc:%Y-%m-%d}"
    if used != load_pem_x509_certificate(kept):
        return [Finding("certificate", f"{words}, and not the one in the file", "./posthouse reload")]
    is_old = used.not_valid_after_utc - now < RENEW_BEFORE
    return [Finding("certificate", words, "Renew it, then ./posthouse reload." if is_old else "")]


async def _postgres(environment: Mapping[str, str]) -> list[Finding]:
    import asyncpg

    connection = await asyncpg.connect(environment["POSTHOUSE_DATABASE_URL"], timeout=SECONDS)
    try:
        version = await connection.fetchval("SHOW server_version")
        commit = await connection.fetchval("SHOW synchronous_commit")
        waits = await connection.fetchval(_LONGEST_TRANSACTION)
    finally:
        await connection.close()
    findings = [Finding("postgres", f"version {version}")]
    if commit not in ("on", "remote_apply"):
        advice = "Set it to on: with less, a 2xx does not mean that it is on disk."
        findings.append(Finding("postgres", f"synchronous_commit is {commit}", advice))
    if waits:
        advice = "It stops the clean-up of old rows; find it in pg_stat_activity."
        findings.append(Finding("postgres", f"a transaction is open for {waits:.0f} s", advice))
    return findings


_LONGEST_TRANSACTION = """
SELECT extract(epoch FROM max(now() - xact_start))
  FROM pg_stat_activity
 WHERE datname = current_database() AND xact_start < now() - interval '5 minutes'
"""


async def _rabbitmq(environment: Mapping[str, str]) -> list[Finding]:
    import aio_pika

    from deploy.broker import Management, accounts, queues

    async with Management(environment) as management:
        findings = [_node(node) for node in await management.call("GET", "/nodes")]
    # Asked of the queues themselves: the management API is some seconds late.
    async with await aio_pika.connect(environment["POSTHOUSE_AMQP_URL"], timeout=SECONDS) as connection:
        for queue in queues():
            state = await _state(connection, queue.name)
            findings += _queue(
                queue.name, state, queue.arguments.get("x-max-length", 0), queue.name in accounts()
            )
    return findings


async def _state(connection: Any, name: str) -> tuple[int, int] | None:
    """Messages and consumers of a queue; None when it is not there."""
    from aiormq.exceptions import ChannelNotFoundEntity

    channel = await connection.channel()
    try:
        found = (await channel.declare_queue(name, passive=True)).declaration_result
    except ChannelNotFoundEntity:
        return None
    await channel.close()
    return found.message_count or 0, found.consumer_count or 0


def _node(node: Mapping[str, Any]) -> Finding:
    name = f"node {node['name']}"
    if not node.get("running"):
        return Finding("rabbitmq", f"{name} does not run", "./posthouse logs rabbitmq")
    if node.get("disk_free_alarm"):
        return Finding("rabbitmq", f"{name} has too little disk left and takes nothing", "Free some disk.")
    if node.get("mem_alarm"):
        return Finding("rabbitmq", f"{name} has too little memory left and takes nothing", "Give it more.")
    return Finding("rabbitmq", f"{name} runs")


def _queue(name: str, state: tuple[int, int] | None, most: int, is_taken_from: bool) -> list[Finding]:
    if state is None:
        return [Finding("rabbitmq", f"the queue {name} is missing", "./posthouse down, then up, makes it.")]
    messages, consumers = state
    if name.startswith("dead.") and messages:
        advice = "Each says why in its headers; the service's log has it too (frame_dead_lettered)."
        return [Finding("rabbitmq", f"{name} holds {messages:,} messages that failed", advice)]
    if is_taken_from and not consumers:
        return [Finding("rabbitmq", f"nobody takes from the queue {name}", f"./posthouse logs {name}")]
    if most and messages > FULL * most:
        advice = "More processes of the service: ./posthouse up --scale"
        return [Finding("rabbitmq", f"{name} holds {messages:,} of at most {most:,} messages", advice)]
    return []


async def _disk(environment: Mapping[str, str]) -> list[Finding]:
    data = Path(environment["POSTHOUSE_DATA"])
    free = shutil.disk_usage(data).free
    words = f"{free / (1 << 30):.1f} GiB free at {data}"
    advice = "" if free > FREE_BYTES else "Too little: free some, or move POSTHOUSE_DATA."
    return [Finding("disk", words, advice), *_readable(environment)]


def _readable(environment: Mapping[str, str]) -> list[Finding]:
    local = Path(environment["POSTHOUSE_LOCAL"])
    files = [local / "addresses.env", local / "posthouse.env", local.parent / "posthouse.env"]
    open_ones = [
        file for file in files if file.exists() and file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    ]
    return [Finding("disk", f"others may read {file}", f"chmod 600 {file}") for file in open_ones]


CHECKS: dict[str, Check] = {
    "gateway": _gateway,
    "certificate": _certificate,
    "postgres": _postgres,
    "rabbitmq": _rabbitmq,
    "disk": _disk,
}
