"""A service made elsewhere gets a name and topics that are its own, or a sentence that says why not."""

from __future__ import annotations

import pytest

from deploy.cli.main import main

PLACES = {"POSTHOUSE_AMQP_URL": "amqp://127.0.0.1:9", "POSTHOUSE_MANAGEMENT_URL": "http://a:b@127.0.0.1:9"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["Weather"], "no name for a service"),
        (["weather.*"], "no name for a service"),
        (["weather", "--handles", "ingest.write_readings"], "is not weather.<name>"),
        (["weather", "--publishes", "weather.#"], "is not weather.<name>"),
        (["weather", "--publishes", "weather.a|.*"], "is not weather.<name>"),
    ],
)
def test_what_is_not_its_own_is_refused_before_anything_is_made(arguments, words, capsys):
    assert main(["account", "add", *arguments], PLACES) == 2
    assert words in capsys.readouterr().err


def test_without_addresses_it_says_where_they_come_from(capsys):
    assert main(["account", "list"], {}) == 2
    assert "POSTHOUSE_AMQP_URL and POSTHOUSE_MANAGEMENT_URL must be set" in capsys.readouterr().err


def test_a_broker_that_is_away_is_said(capsys):
    assert main(["account", "list"], PLACES) == 2
    assert "RabbitMQ does not do it" in capsys.readouterr().err
