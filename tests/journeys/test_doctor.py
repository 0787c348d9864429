"""The doctor finds nothing in a healthy system, what is wrong in one that is not, and mends what is safe."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aio_pika
import pytest
from aiormq.exceptions import AMQPError

from tests.journeys.conftest import Posthouse
from tests.journeys.instance import OwnPosthouse, own_posthouse, until_it_is

pytestmark = pytest.mark.timeout(300)


def test_a_healthy_system(posthouse: Posthouse) -> None:
    done = posthouse.run("doctor")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WRONG" not in done.stdout
    for part in (
        "gateway",
        "postgres",
        "rabbitmq",
        "topology",
        "rights",
        "queues",
        "redis",
        "clocks",
        "disk",
    ):
        assert f"ok     {part}" in done.stdout


async def test_dead_letters_are_found(posthouse: Posthouse) -> None:
    async with await aio_pika.connect(posthouse.addresses["POSTHOUSE_AMQP_URL"]) as connection:
        channel = await connection.channel()
        await channel.default_exchange.publish(aio_pika.Message(b"x"), "dead.chat")
        try:
            told = posthouse.run("doctor")
        finally:
            await (await channel.get_queue("dead.chat")).purge()
    assert told.returncode == 1
    assert "dead.chat holds 1 messages that failed" in told.stdout


def test_a_file_of_secrets_that_others_may_read_is_found(posthouse: Posthouse) -> None:
    file = posthouse.directory / "addresses.env"
    file.chmod(0o644)
    try:
        told = posthouse.run("doctor")
    finally:
        file.chmod(0o600)
    assert told.returncode == 1
    assert f"others may read {file}" in told.stdout


@pytest.fixture(scope="module")
async def hurt(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[OwnPosthouse]:
    """An instance to break things in."""
    async with own_posthouse(tmp_path_factory.mktemp("hurt")) as instance:
        yield instance


@contextmanager
def launcher_asleep(posthouse: OwnPosthouse) -> Iterator[None]:
    """It would see that a service is not ready, and mend first."""
    pid = json.loads((posthouse.directory / "run" / "processes.json").read_text())["supervisor"][0]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def look(posthouse: OwnPosthouse, *more: str) -> tuple[int, dict[str, str], list[str]]:
    """Exit status, what is wrong (words, advice), what was mended."""
    done = await asyncio.to_thread(posthouse.run, "doctor", "--json", *more, seconds=120)
    assert done.stdout, done.stderr
    told = json.loads(done.stdout)
    assert told["healthy"] is (done.returncode == 0)
    wrong = {f"{one['part']}: {one['words']}": one["advice"] for one in told["findings"] if one["wrong"]}
    return done.returncode, wrong, told["mended"]


async def check_found_and_mended(posthouse: OwnPosthouse, expected: list[str]) -> list[str]:
    """Each is found, with what to do; then mended, and nothing is left; answers what was done."""
    status, wrong, _ = await look(posthouse)
    assert status == 1
    for words in expected:
        advice = [advice for found, advice in wrong.items() if words in found]
        assert advice == ["./posthouse doctor --mend"], f"{words!r} is not in {wrong}"
    status, wrong, mended = await look(posthouse, "--mend")
    assert (status, wrong) == (0, {})
    return mended


async def test_what_is_missing_in_the_broker_is_found_and_made_again(hurt: OwnPosthouse) -> None:
    place, no_rights = hurt.virtual_host, {"configure": "^$", "write": "^$", "read": "^$"}
    with launcher_asleep(hurt):
        await hurt.management("DELETE", f"bindings/{place}/e/posthouse.commands/q/auth/auth.%23")
        await hurt.management("DELETE", f"queues/{place}/chat.events")
        await hurt.management("DELETE", f"exchanges/{place}/posthouse.dead")
        await hurt.management("DELETE", f"policies/{place}/posthouse-mqtt")
        await hurt.management("PUT", f"permissions/{place}/ingest", no_rights)
        await hurt.management("DELETE", f"topic-permissions/{place}/auth")
        await hurt.management("DELETE", "users/worker")
        expected = [
            "the binding auth.# of posthouse.commands to auth is missing",
            "the queue chat.events is missing",
            "the exchange posthouse.dead is missing",
            "the binding chat of posthouse.dead to dead.chat is missing",
            "the policy posthouse-mqtt is not as it should be",
            "the account ingest has other rights than it should",
            "the account auth may publish other topics to posthouse.wait than it should",
            "the account worker is missing",
        ]
        mended = await check_found_and_mended(hurt, expected)
    assert mended == ["broker: exchanges, queues, bindings, accounts and rights as declared"]
    await hurt.ready()


async def test_who_stopped_taking_is_named_and_takes_again_with_his_rights(hurt: OwnPosthouse) -> None:
    with launcher_asleep(hurt):
        await hurt.management("DELETE", "users/chat")
        await until_it_is(lambda: nobody_takes(hurt, "chat"), "the service is cut off")
        expected = ["the account chat is missing"]
        _, wrong, _ = await look(hurt)
        assert wrong["queues: nobody takes from the queue chat"] == "./posthouse logs chat"
        assert wrong["queues: nobody takes from the queue chat.events"] == "./posthouse logs chat"
        await check_found_and_mended(hurt, expected)


async def nobody_takes(posthouse: OwnPosthouse, queue: str) -> bool:
    return (await posthouse.counted(queue))[1] == 0


async def test_what_is_missing_in_the_database_is_found_and_made_again(hurt: OwnPosthouse) -> None:
    now = datetime.now(UTC)
    hour = f"inbox_{now + timedelta(hours=3):%Y%m%d%H}"
    day = f"log_line_{now + timedelta(days=1):%Y%m%d}"
    await hurt.sql(f"DROP TABLE auth.{hour}")
    await hurt.sql(f"DROP TABLE worker.{day}")
    await hurt.sql("REVOKE INSERT ON ingest.dataset FROM posthouse_ingest")
    await hurt.sql("ALTER ROLE posthouse_chat PASSWORD 'another'")
    expected = [
        f"auth.inbox has no partition {hour}",
        f"worker.log_line has no partition {day}",
        "posthouse_ingest may not read and write 1 of its own tables",
        "posthouse_chat does not get in",
    ]
    await check_found_and_mended(hurt, expected)


async def test_a_queue_without_a_leader_is_found_and_gets_one(hurt: OwnPosthouse) -> None:
    for attempt in range(20):  # one of three is most often caught half made, not always
        traps = [f"trap.{attempt}.{number}" for number in range(3)]
        await killed_when_they_are_declared(hurt, traps)
        with launcher_asleep(hurt):  # ten seconds later it would elect one itself
            await until_it_is(lambda: hurt.counted("auth"), "the broker is back")
            caught = [name for name in traps if not await takes(hurt, name)]
            if caught:
                mended = await check_found_and_mended(hurt, [f"{name} has no leader" for name in caught])
        await hurt.ready()
        if caught:
            break
    assert caught
    assert mended == [f"leaders: elected ([{','.join(['ok'] * len(caught))}])"]
    assert [await takes(hurt, name) for name in traps] == [True] * 3


async def killed_when_they_are_declared(posthouse: OwnPosthouse, names: list[str]) -> None:
    """With a broker that ends at the moment it has answered, and is back."""
    with contextlib.suppress(AMQPError, OSError):
        async with await aio_pika.connect(posthouse.addresses["POSTHOUSE_AMQP_URL"]) as connection:
            channel = await connection.channel()
            for name in names:
                await channel.declare_queue(name, durable=True, arguments={"x-queue-type": "quorum"})
            killed = posthouse.kill("rabbitmq")
    await posthouse.another("rabbitmq", killed)


async def takes(posthouse: OwnPosthouse, queue: str) -> bool:
    """Whether a message is confirmed."""
    with contextlib.suppress(TimeoutError):
        async with (
            asyncio.timeout(5),
            await aio_pika.connect(posthouse.addresses["POSTHOUSE_AMQP_URL"]) as connection,
        ):
            channel = await connection.channel()
            await channel.default_exchange.publish(aio_pika.Message(b"x"), queue)
            return True
    return False


async def test_what_only_a_person_can_judge_is_said_and_left_alone(hurt: OwnPosthouse) -> None:
    place = hurt.virtual_host
    policy = {"pattern": "^auth$", "definition": {"max-length": 5}, "apply-to": "queues"}
    await hurt.management("PUT", f"policies/{place}/tiny", policy)
    await hurt.management(
        "POST", f"bindings/{place}/e/posthouse.events/q/chat.events", {"routing_key": "made.up"}
    )
    await hurt.sql("GRANT USAGE ON SCHEMA auth TO posthouse_chat")
    await hurt.sql("GRANT SELECT ON auth.account TO posthouse_chat")
    try:
        status, wrong, mended = await look(hurt, "--mend")
    finally:
        await hurt.management("DELETE", f"policies/{place}/tiny")
        await hurt.management("DELETE", f"bindings/{place}/e/posthouse.events/q/chat.events/made.up")
        await hurt.sql("REVOKE SELECT ON auth.account FROM posthouse_chat")
        await hurt.sql("REVOKE USAGE ON SCHEMA auth FROM posthouse_chat")
    assert (status, mended) == (1, [])
    assert sorted(wrong) == [
        "accounts: posthouse_chat may read tables of auth",
        "topology: a policy (tiny) changes auth: max-length",
        "topology: chat.events is bound to posthouse.events with made.up, "
        "which nothing of Posthouse asked for",
    ]
    assert all(wrong.values())


async def test_redis_away_is_said(hurt: OwnPosthouse) -> None:
    with launcher_asleep(hurt):
        killed = hurt.kill("redis")
        _, wrong, _ = await look(hurt)
    assert [found for found in wrong if found.startswith("redis: does not answer")]
    await hurt.another("redis", killed)
    await hurt.ready()


async def test_a_backup_is_known_and_open_files_of_secrets_are_closed(
    hurt: OwnPosthouse, tmp_path: Path
) -> None:
    file = tmp_path / "backup"
    assert (await asyncio.to_thread(hurt.run, "backup", str(file))).returncode == 0
    (hurt.directory / "addresses.env").chmod(0o644)
    told = await asyncio.to_thread(hurt.run, "doctor", "--mend")
    assert told.returncode == 0, told.stdout
    assert f"mended files: {hurt.directory / 'addresses.env'} readable by you alone" in told.stdout
    assert f"UTC, {file}" in told.stdout
