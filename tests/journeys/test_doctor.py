"""The doctor finds nothing in a healthy system, and what is wrong in one that is not."""

from __future__ import annotations

import aio_pika
import pytest

from tests.journeys.conftest import Posthouse

pytestmark = pytest.mark.timeout(300)


def test_a_healthy_system(posthouse: Posthouse) -> None:
    done = posthouse.run("doctor")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WRONG" not in done.stdout
    for part in ("gateway", "postgres", "rabbitmq", "disk"):
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
    assert f"chmod 600 {file}" in told.stdout
