"""A doctor that can reach nothing says so, part by part."""

from __future__ import annotations

from datetime import UTC, datetime

from deploy.cli.doctor import judged
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
