"""A doctor that can reach nothing says so, part by part."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

from deploy.cli.doctor.database import wanted_partitions
from deploy.cli.doctor.gateway import judged
from deploy.cli.doctor.machine import apart, judged_backup
from deploy.cli.main import main
from tests.unit.gateway.certificates import make_pair

NOWHERE = {
    "POSTHOUSE_URL": "http://127.0.0.1:9",
    "POSTHOUSE_DATABASE_URL": "postgresql://a:b@127.0.0.1:9/x",
    "POSTHOUSE_AMQP_URL": "amqp://a:b@127.0.0.1:9",
    "POSTHOUSE_MANAGEMENT_URL": "http://a:b@127.0.0.1:9",
}


def test_what_does_not_answer_is_named_with_what_to_do(tmp_path, capsys):
    places = {"POSTHOUSE_DATA": str(tmp_path), "POSTHOUSE_LOCAL": str(tmp_path)}
    assert main(["doctor"], NOWHERE | places) == 1
    told = capsys.readouterr().out
    for part in ("gateway", "postgres", "rabbitmq"):
        assert f"WRONG  {part:<12} does not answer" in told
    assert "ok     disk" in told


def test_without_addresses_it_says_to_start(capsys):
    assert main(["doctor"], {}) == 1
    assert "POSTHOUSE_URL is not set" in capsys.readouterr().out


def test_a_certificate_that_ends_soon_or_was_renewed_unseen_is_named(tmp_path):
    good, old = (
        make_pair(tmp_path, "good").cert.read_bytes(),
        make_pair(tmp_path, "old", days=13).cert.read_bytes(),
    )

    def advice(shown: bytes, kept: bytes) -> str:
        (finding,) = judged(shown, kept, datetime.now(UTC))
        return finding.advice

    assert advice(good, good) == ""
    assert "Renew it" in advice(old, old)
    assert advice(old, good) == "./posthouse reload"


NOW = datetime(2026, 1, 31, 22, 30, tzinfo=UTC)


def test_partitions_are_wanted_over_midnight_and_the_turn_of_the_year():
    wanted = wanted_partitions(["auth"], NOW.replace(year=2025, month=12))
    assert wanted["auth.inbox"][0] == "inbox_2025123122"
    assert wanted["auth.inbox"][-1] == "inbox_2026010103"
    assert wanted["worker.log_line"] == ["log_line_20251231", "log_line_20260101", "log_line_20260102"]
    assert wanted["ingest.reading"] == ["reading_2025_12", "reading_2026_01", "reading_2026_02"]


def test_a_clock_that_is_apart_is_named_with_how_much():
    assert apart("Redis", (100.0, 100.0), (99.0, 99.5)) == []
    assert apart("RabbitMQ", (98.0, 99.0), (100.9, 101.0)) == []  # it tells whole seconds
    (ahead,) = apart("Redis", (110.0, 110.0), (99.0, 100.0))
    assert "that of Redis is 10.0 s ahead of this one" in ahead.words
    (behind,) = apart("PostgreSQL", (50.0, 50.0), (99.0, 100.0))
    assert "49.0 s behind" in behind.words
    assert "NTP" in behind.advice


def test_a_backup_that_is_old_or_was_never_made_is_asked_for():
    began = NOW.timestamp()

    def advice(last, now=NOW):
        return judged_backup(last, began, now).advice

    assert advice(None) == ""
    assert "./posthouse backup" in advice(None, NOW + timedelta(days=8))
    assert advice((NOW, "/b"), NOW + timedelta(days=6)) == ""
    assert "./posthouse backup" in advice((NOW, "/b"), NOW + timedelta(days=8))


def test_it_says_it_to_scripts_as_well(capsys):
    assert main(["doctor", "--json"], {}) == 1
    told = json.loads(capsys.readouterr().out)
    assert not told["healthy"]
    assert {"part", "words", "advice", "mend", "wrong"} == set(told["findings"][0])
