"""What is sealed opens under the same key and for the same use, and nowhere else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.identity import new_secret_key
from shared.vault import SealBroken, Vault
from tests.servers import SECRET_KEY

VAULT = Vault(SECRET_KEY)
TEXTS = st.text(min_size=1, max_size=200)


@given(TEXTS)
def test_what_goes_in_comes_out(text: str) -> None:
    assert VAULT.unseal(VAULT.seal(text, "auth.password"), "auth.password") == text
    assert VAULT.unlock(VAULT.lock(text, "auth.signing_key"), "auth.signing_key") == text


def test_a_seal_is_the_same_each_time_and_a_lock_never() -> None:
    assert VAULT.seal("hunter2", "a") == VAULT.seal("hunter2", "a")
    assert VAULT.lock("hunter2", "a") != VAULT.lock("hunter2", "a")
    assert b"hunter2" not in VAULT.seal("hunter2", "a") + VAULT.lock("hunter2", "a")


def test_the_context_and_the_key_are_part_of_the_seal() -> None:
    other = Vault(new_secret_key())
    for vault, context in ((VAULT, "b"), (other, "a")):
        with pytest.raises(SealBroken):
            vault.unseal(VAULT.seal("hunter2", "a"), context)
        with pytest.raises(SealBroken):
            vault.unlock(VAULT.lock("hunter2", "a"), context)


@given(st.binary(min_size=12, max_size=80))
def test_bytes_from_elsewhere_open_nothing(noise: bytes) -> None:
    with pytest.raises(SealBroken):
        VAULT.unseal(noise, "a")
    with pytest.raises(SealBroken):
        VAULT.unlock(noise, "a")


def test_a_digest_tells_uses_apart() -> None:
    assert len(VAULT.digest("k", "dataset.write")) == 32
    assert VAULT.digest("k", "dataset.write") == VAULT.digest("k", "dataset.write")
    assert VAULT.digest("k", "dataset.write") != VAULT.digest("k", "dataset.read")


def test_a_short_key_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Vault("c2hvcnQ")
