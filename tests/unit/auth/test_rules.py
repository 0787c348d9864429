"""Names, addresses, passwords, tokens and callers: what is taken, and every mistake at once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.auth import rules
from services.auth.leaked import is_leaked
from services.auth.rules import Fate, Person, Refreshing
from shared.contracts.base import Principal
from shared.errors import Conflict, Forbidden, Invalid, Unauthorized

GOOD = "eleven purple kettles"


def codes(
    name: str = "ann", email: str = "ann@example.org", password: str = GOOD, least: int = 15
) -> set[str]:
    return {
        f"{error.path}:{error.code}" for error in rules.mistakes(name, email, password, least, leaked=False)
    }


def test_a_good_account_has_no_mistakes() -> None:
    assert codes() == set()


def test_every_mistake_is_named_at_once() -> None:
    assert codes("ann@work ", "ann @example.org", "1234567") == {
        "name:invalid",
        "email:invalid",
        "password:too_short",
        "password:too_common",
    }


def test_length_counts_characters_and_not_bytes() -> None:
    assert codes(password="grün blåbær čaj") == set()
    assert codes(password="grün blåbær ča") == {"password:too_short"}


def test_what_looks_the_same_is_the_same_password() -> None:
    assert rules.normalised("cafe\u0301 ﬁve") == rules.normalised("café five")


def test_composed_forms_do_not_make_a_password_longer() -> None:
    assert codes(password="e\u0301" * 7 + "qxzvb") == {"password:too_short"}


@pytest.mark.parametrize("least", [10, 15])
def test_the_minimum_is_a_setting(least: int) -> None:
    assert codes(password="kettle-9-z", least=least) == (set() if least == 10 else {"password:too_short"})


@pytest.mark.parametrize(
    "password",
    [
        "posthousepassword",
        "ChangeThisPassword",
        "aaaaaaaaaaaaaaaa",
        "abcabcabcabcabca",
        "123456789012345",
        "987654321098765",
        "qwertyuiopasdfg",
        "poiuytrewqlkjhgfdsa",
        "1qaz2wsx3edc4rfv",
        "correct-horse-battery-staple",
    ],
)
def test_what_anybody_would_try_is_refused(password: str) -> None:
    assert codes(password=password) == {"password:too_common"}


@pytest.mark.parametrize("password", ["password1234567", "PassWord1234567", "iloveyouforever"])
def test_a_leaked_password_is_known_in_any_case(password: str) -> None:
    assert is_leaked(password)
    assert not is_leaked(GOOD)


@given(st.text(max_size=300))
def test_anything_can_be_looked_up(password: str) -> None:
    assert is_leaked(password) in (True, False)


def test_a_leaked_password_is_refused() -> None:
    found = rules.mistakes("ann", "ann@example.org", GOOD, 15, leaked=True)
    assert [(error.path, error.code) for error in found] == [("password", "too_common")]


@pytest.mark.parametrize("password", ["Annabel Margaret", "ANNABEL@example.org", "annabel@example.org"])
def test_the_name_or_the_address_is_no_password(password: str) -> None:
    assert codes("annabel margaret", "annabel@example.org", password) == {"password:same_as_name"}


def test_a_very_long_password_is_refused_but_a_long_one_is_not() -> None:
    assert codes(password="".join(chr(0x4E00 + i) for i in range(256))) == set()
    assert codes(password="".join(chr(0x4E00 + i) for i in range(257))) == {"password:too_long"}


@pytest.mark.parametrize("name", ["a@b", " ann", "ann ", "an\nn", "a\u200bnn", "\x00"])
def test_a_name_is_printable_and_no_address(name: str) -> None:
    assert codes(name=name) == {"name:invalid"}


@pytest.mark.parametrize("email", ["", "ann", "ann@", "@x", "a@b@c", "ann @x", "ann@x\n", "a\u200b@x"])
def test_an_address_has_a_name_and_a_host(email: str) -> None:
    assert codes(email=email) == {"email:invalid"}


def test_names_are_compared_without_case() -> None:
    assert rules.key_of("STRASSE") == rules.key_of("straße")


@given(st.text(max_size=300), st.text(max_size=300), st.text(max_size=300))
def test_whatever_is_typed_gets_an_answer(name: str, email: str, password: str) -> None:
    for error in rules.mistakes(name, email, password, 15, leaked=False):
        assert error.path in {"name", "email", "password"}
        assert password == "" or len(password) < 4 or password not in error.message


NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
OWNER = Person(UUID(int=1), "default", "ann", "ann@example.org", (), NOW)


def fate(owner: Person = OWNER, **given: Any) -> Fate:
    token = {"used_at": None, "locked_successor": None, "ended_at": None} | given
    opened = {"session_id": UUID(int=2), "opened_at": NOW, "expires_at": NOW + timedelta(days=7)}
    return rules.fate_of(Refreshing(**(opened | token)), owner, NOW)


def seconds_ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def test_a_new_token_gets_a_successor_and_a_used_one_the_same_for_ten_seconds() -> None:
    assert fate() is Fate.ROTATED
    assert fate(used_at=NOW, locked_successor=b"s") is Fate.REPEATED
    assert fate(used_at=seconds_ago(10), locked_successor=b"s") is Fate.REPEATED
    assert fate(used_at=seconds_ago(10.001), locked_successor=b"s") is Fate.STOLEN
    assert fate(used_at=seconds_ago(3600)) is Fate.STOLEN


def test_nothing_follows_when_the_session_or_its_owner_is_gone() -> None:
    assert fate(ended_at=NOW) is Fate.OVER
    assert fate(expires_at=NOW) is Fate.OVER
    assert fate(expires_at=NOW, used_at=seconds_ago(60)) is Fate.OVER
    deleted = Person(UUID(int=1), "default", "ann", "ann@example.org", (), NOW, deleted_at=NOW)
    assert fate(deleted) is Fate.OVER


def test_one_administrator_stays() -> None:
    rules.keep_one({UUID(int=1), UUID(int=2)}, OWNER)
    with pytest.raises(Conflict):
        rules.keep_one({UUID(int=1)}, OWNER)


def test_administrators_are_people_with_that_role() -> None:
    person = Principal(kind="user", id=str(UUID(int=1)), roles=("administrator",))
    assert rules.administrator(person) == UUID(int=1)
    for caller in (
        Principal(kind="user", id=str(UUID(int=1))),
        Principal(kind="key", id=str(UUID(int=1)), roles=("administrator",)),
        Principal(kind="service", id="ingest", roles=("administrator",)),
        Principal(kind="user", id="no account", roles=("administrator",)),
    ):
        with pytest.raises(Forbidden):
            rules.administrator(caller)
    with pytest.raises(Unauthorized):
        rules.administrator(Principal())


@pytest.mark.parametrize(
    ("client", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("", ""),
        ("somewhere", "somewhere"),
    ],
)
def test_an_ipv6_user_is_a_network(client: str, network: str) -> None:
    assert rules.network_of(client) == network


def test_a_cursor_is_one_the_list_has_given() -> None:
    assert rules.cursor(None) is None
    assert rules.cursor(UUID(int=5).hex) == UUID(int=5)
    with pytest.raises(Invalid):
        rules.cursor("rubbish")
