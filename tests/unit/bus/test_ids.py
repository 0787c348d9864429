"""Which callers are one where an answer is kept for who asked."""

from __future__ import annotations

from shared.bus.ids import keyed_id
from shared.contracts.base import Principal

TOPIC = "ingest.write_readings"


def holder(kind: str, via: str = "") -> Principal:
    return Principal(kind="key", id="d1", via=via, scopes=(f"dataset:d1:{kind}",))


def test_whoever_may_only_read_is_another_caller_than_whoever_may_write():
    assert keyed_id(holder("read"), TOPIC, "k") != keyed_id(holder("write"), TOPIC, "k")


def test_a_renewed_write_key_goes_on_where_the_old_one_stopped():
    assert keyed_id(holder("write", "old"), TOPIC, "k") == keyed_id(holder("write", "new"), TOPIC, "k")


def test_what_a_key_wrote_before_anybody_could_be_asked_about_it_is_known_when_it_is_repeated():
    unproved = Principal(kind="key", id="d1", scopes=("key:00ff",))
    assert keyed_id(unproved, TOPIC, "k") == keyed_id(holder("write"), TOPIC, "k")


def test_the_same_id_in_another_project_is_another_caller():
    ann = Principal(kind="user", id="u1")
    moved = Principal(kind="user", id="u1", project="elsewhere")
    assert keyed_id(ann, TOPIC, "k") != keyed_id(moved, TOPIC, "k")
