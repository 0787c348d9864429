"""What is written for the servers, and what is done about what an accident leaves."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from deploy.local.errors import Failure, tail
from deploy.local.instance import Instance
from deploy.local.ports import Ports
from deploy.local.postgres import Postgres
from deploy.local.rabbitmq import Rabbit, RabbitPorts, find
from deploy.local.servers import Servers
from deploy.local.settings import load
from deploy.local.testing import given_servers
from deploy.local.up import checked_key


@pytest.fixture
def instance(tmp_path: Path) -> Instance:
    instance = Instance(load(tmp_path, {}), tmp_path)
    instance.make_directories()
    return instance


def rabbit(instance: Instance) -> Rabbit:
    ports = RabbitPorts(amqp=1, management=2, prometheus=3, mqtt=4, distribution=5, epmd=6)
    return Rabbit(instance, ports, "word")


def unpacked(instance: Instance, version: str) -> None:
    home = instance.servers / "rabbitmq/usr/lib/rabbitmq/lib" / f"rabbitmq_server-{version}"
    (home / "sbin").mkdir(parents=True)
    (home / "plugins" / f"rabbit-{version}").mkdir(parents=True)
    (home / "sbin/rabbitmq-server").touch()


def test_every_port_of_the_broker_is_on_loopback_and_nobody_is_anonymous(instance: Instance) -> None:
    unpacked(instance, "3.10.8")

    epmd, broker = rabbit(instance).prepare()

    config = Path(broker.env["RABBITMQ_CONFIG_FILE"])
    lines = config.read_text().splitlines()
    assert [line for line in lines if "tcp" in line and "127.0.0.1" not in line and ".port" not in line] == []
    assert "mqtt.allow_anonymous = false" in lines
    assert "anonymous_login_user = none" not in lines
    assert config.stat().st_mode & 0o077 == 0
    assert "inet_dist_use_interface {127,0,0,1}" in broker.env["RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS"]
    assert epmd.command[-2:] == ("-address", "127.0.0.1")


def test_a_newer_broker_is_told_in_its_own_words(instance: Instance) -> None:
    unpacked(instance, "4.0.5")
    _, broker = rabbit(instance).prepare()
    lines = Path(broker.env["RABBITMQ_CONFIG_FILE"]).read_text().splitlines()
    assert "anonymous_login_user = none" in lines
    assert "deprecated_features.permit.management_metrics_collection = true" in lines


def test_nothing_half_unpacked_is_taken_for_a_broker(instance: Instance) -> None:
    (instance.servers / "rabbitmq/usr/lib/rabbitmq/lib").mkdir(parents=True)
    found = find(instance)
    assert found is None or not found.server.is_relative_to(instance.root)


def test_a_lock_that_names_a_process_which_is_no_postgres_is_removed(instance: Instance) -> None:
    postgres = Postgres(instance, 1, "word")
    lock = postgres.data / "postmaster.pid"
    lock.parent.mkdir(parents=True)

    for pid in (os.getpid(), 2**22 + 1):
        lock.write_text(f"{pid}\n{postgres.data}\n")
        postgres.remove_stale_lock()
        assert not lock.exists()


def test_the_empty_lock_of_a_postgres_killed_while_it_started_is_removed(instance: Instance) -> None:
    postgres = Postgres(instance, 1, "word")
    lock = postgres.data / "postmaster.pid"
    lock.parent.mkdir(parents=True)
    lock.touch()
    postgres.remove_stale_lock()
    assert not lock.exists()


def test_data_of_another_key_is_not_opened(instance: Instance, tmp_path: Path) -> None:
    first = checked_key(instance)
    assert checked_key(Instance(load(tmp_path, {}), tmp_path)) == first

    with pytest.raises(Failure, match="another POSTHOUSE_SECRET_KEY"):
        checked_key(Instance(load(tmp_path, {"POSTHOUSE_SECRET_KEY": "other"}), tmp_path))

    instance.settings.file.unlink()
    with pytest.raises(Failure, match="another POSTHOUSE_SECRET_KEY"):
        checked_key(Instance(load(tmp_path, {}), tmp_path))


def test_a_server_that_settings_name_is_used_and_the_others_are_our_own(instance: Instance) -> None:
    ports = Ports(instance.run / "ports.json")
    own = Servers(instance, ports, "key")
    given = {
        "POSTHOUSE_DATABASE_URL": "postgresql://elsewhere/db",
        # As in a shell that has read addresses.env of this very instance.
        "POSTHOUSE_REDIS_URL": own.addresses.redis,
    }

    servers = Servers(Instance(load(instance.root, given), instance.root), ports, "key")

    assert servers.postgres is None
    assert servers.addresses.database == "postgresql://elsewhere/db"
    assert servers.valkey is not None
    assert servers.addresses.amqp == own.addresses.amqp


def test_servers_for_tests_can_be_given() -> None:
    given = given_servers(
        {"POSTHOUSE_TEST_AMQP_URL": "amqp://x", "POSTHOUSE_DATABASE_URL": "mine, not for tests"}
    )
    assert given == {"POSTHOUSE_AMQP_URL": "amqp://x"}


def test_the_end_of_a_log_is_shown_whatever_is_in_it(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"x" * 100_000 + b"\none\n\xff\xfe\n")
    assert tail(log, 2) == ["one", "\ufffd\ufffd"]
    assert tail(tmp_path / "none", 2) == []
