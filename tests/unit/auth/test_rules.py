"""Names, addresses and passwords: what is taken, and every mistake at once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.auth import rules

GOOD = "eleven purple kettles"


def codes(
    name: str = "ann", email: str = "ann@example.org", password: str = GOOD, least: int = 15
) -> set[str]:
    return {f"{error.path}:{error.code}" for error in rules.mistakes(name, email, password, least)}


def test_a_good_account_has_no_mistakes() -> None:
    assert codes() == set()


def test_every_mistake_is_named_at_once() -> None:
    assert codes("ann@work ", "ann @example.org", "123456") == {
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


@pytest.mark.parametrize("least", [8, 15])
def test_the_minimum_is_a_setting(least: int) -> None:
    assert codes(password="kettle-9"[:8], least=least) == (set() if least == 8 else {"password:too_short"})


@pytest.mark.parametrize(
    "password",
    [
        "password1234567",
        "PasswordPassword",
        "aaaaaaaaaaaaaaaa",
        "abcabcabcabcabca",
        "123456789012345",
        "987654321098765",
        "qwertyuiopasdfg",
        "poiuytrewqlkjhgfdsa",
        "1qaz2wsx3edc4rfv",
        "correcthorsebatterystaple",
    ],
)
def test_what_anybody_would_try_is_refused(password: str) -> None:
    assert codes(password=password) == {"password:too_common"}


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
    for error in rules.mistakes(name, email, password, 15):
        assert error.path in {"name", "email", "password"}
        assert password == "" or len(password) < 4 or password not in error.message
