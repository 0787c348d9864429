"""Frame ids: in order of time, or one for each caller, topic and key."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from shared.bus.ids import born_ms, keyed_id, uuid7
from shared.contracts.base import Principal

ROOT = Path(__file__).parents[3]
ANN = Principal(kind="user", id="ann")
TEXT = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=40)


def test_a_uuid7_begins_with_its_time() -> None:
    before = time.time_ns() // 1_000_000
    made = [uuid7() for _ in range(1_000)]
    after = time.time_ns() // 1_000_000
    assert len(set(made)) == 1_000
    for each in made:
        assert (each.version, each.variant) == (7, "specified in RFC 4122")
        assert before <= born_ms(each) <= after


FORKING = """
import os
from shared.bus.ids import uuid7
reading, writing = os.pipe()
if os.fork() == 0:
    os.write(writing, uuid7(0).bytes)
    os._exit(0)
assert os.read(reading, 16) != uuid7(0).bytes
os.wait()
"""


def test_a_forked_process_makes_ids_of_its_own() -> None:
    subprocess.run([sys.executable, "-c", FORKING], check=True, cwd=ROOT)


@given(st.integers(0, 2**48 - 1))
def test_any_time_can_be_read_back(now: int) -> None:
    assert born_ms(uuid7(now)) == now


@given(TEXT, TEXT)
def test_a_keyed_id_is_the_same_every_time_and_a_uuid8_that_starts_with_f(topic: str, key: str) -> None:
    made = keyed_id(ANN, topic, key)
    assert made == keyed_id(ANN, topic, key)
    assert (made.version, made.variant) == (8, "specified in RFC 4122")
    assert str(made)[0] == "f"


def test_caller_topic_project_and_key_all_count() -> None:
    callers = [
        ANN,
        Principal(kind="user", id="bob"),
        Principal(kind="key", id="ann"),
        Principal(kind="user", id="ann", project="other"),
    ]
    ids = {keyed_id(who, topic, key) for who in callers for topic in ("a.b", "a.c") for key in ("1", "2")}
    assert len(ids) == 16


def test_what_a_session_adds_does_not_count() -> None:
    again = Principal(kind="user", id="ann", via="another session", roles=("administrator",))
    assert keyed_id(ANN, "a.b", "1") == keyed_id(again, "a.b", "1")
