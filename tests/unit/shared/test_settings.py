"""Settings come from the environment, or say at once all that is wrong with it."""

from __future__ import annotations

from typing import Annotated

import msgspec
import pytest

from shared.settings import BadSettings, Setting, describe, load, note


class Example(msgspec.Struct, frozen=True, kw_only=True):
    amqp_url: Annotated[str, note("the broker", secret=True)]
    port: Annotated[int, note("web port", ge=0, le=65535)] = 8080
    verbose: Annotated[bool, note("say more")] = False
    drain_seconds: float = 5.0


def test_each_field_has_its_variable() -> None:
    environment = {"POSTHOUSE_AMQP_URL": "amqp://x", "POSTHOUSE_PORT": "81", "POSTHOUSE_VERBOSE": "1"}
    settings = load(Example, environment)
    assert settings == Example(amqp_url="amqp://x", port=81, verbose=True, drain_seconds=5.0)


def test_an_empty_variable_is_as_good_as_none() -> None:
    assert load(Example, {"POSTHOUSE_AMQP_URL": "amqp://x", "POSTHOUSE_PORT": ""}).port == 8080


def test_every_mistake_is_named_at_once_and_no_value_is_told() -> None:
    with pytest.raises(BadSettings) as bad:
        load(Example, {"POSTHOUSE_PORT": "70000", "POSTHOUSE_DRAIN_SECONDS": "hunter2"})
    for name in ("POSTHOUSE_AMQP_URL is missing", "POSTHOUSE_PORT", "POSTHOUSE_DRAIN_SECONDS"):
        assert name in str(bad.value)
    assert "hunter2" not in str(bad.value)


def test_documentation_is_made_of_the_structure() -> None:
    assert describe(Example) == [
        Setting("POSTHOUSE_AMQP_URL", None, "the broker", True),
        Setting("POSTHOUSE_PORT", "8080", "web port", False),
        Setting("POSTHOUSE_VERBOSE", "0", "say more", False),
        Setting("POSTHOUSE_DRAIN_SECONDS", "5.0", "", False),
    ]
