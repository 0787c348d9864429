"""Who may do what, and what variables can become."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingest import rules
from shared.contracts.base import ANONYMOUS, Principal
from shared.contracts.ingest import Variable, VariableSpec
from shared.errors import Forbidden, Invalid, NotFound, Refusal, Unauthorized
from tests.unit.ingest.test_ingest_numbering import ANN, AT, dataset, variable

SCOPE = f"dataset:{dataset().id}"


def spec(tag: str, field: int | None = None) -> VariableSpec:
    return VariableSpec(tag=tag, field=field)


def codes(current: tuple[Variable, ...], *wanted: VariableSpec) -> list[str]:
    with pytest.raises(Invalid) as refusal:
        rules.planned(current, wanted)
    return [error.code for error in refusal.value.errors]


def test_variables_get_the_free_fields_in_their_order() -> None:
    plan = rules.planned((), [spec("a"), spec("b", 1), spec("c")])
    assert [(one.tag, one.field) for one in plan] == [("b", 1), ("a", 2), ("c", 3)]


def test_a_variable_left_out_is_retired_and_comes_back_with_its_field() -> None:
    first = rules.planned((), [spec("a"), spec("b")])
    second = rules.planned(first, [spec("c"), spec("b")])
    assert second == (variable("a", 1, retired=True), variable("b", 2), variable("c", 3))
    assert rules.planned(second, [spec("a")])[0] == variable("a", 1)


def test_every_mistake_is_named() -> None:
    current = rules.planned((), [spec("a"), spec("b")])
    found = codes(current, spec("a", 2), spec("c", 1), spec("d"), spec("d"), spec("status"))
    assert found == ["field_is_for_ever", "field_taken", "tag_twice", "reserved_tag"]


def test_a_dataset_has_64_fields_for_ever() -> None:
    full = rules.planned((), [spec(f"v{index}") for index in range(64)])
    assert full[-1].field == 64
    assert codes(full, spec("one_more")) == ["too_many_variables"]


@given(st.lists(st.lists(st.sampled_from("abcdefgh"), unique=True), max_size=6))
def test_a_field_belongs_to_one_tag_for_ever(changes: list[list[str]]) -> None:
    variables: tuple[Variable, ...] = ()
    fields: dict[str, int] = {}
    for tags in changes:
        variables = rules.planned(variables, [spec(tag) for tag in tags])
        now = {one.tag: one.field for one in variables}
        assert fields.items() <= now.items()
        assert sorted(now.values()) == list(range(1, len(now) + 1))
        assert {one.tag for one in variables if not one.retired} == set(tags)
        fields = now


@pytest.mark.parametrize(
    ("caller", "reads", "reads_all", "writes", "owns"),
    [
        (ANN, True, True, True, True),
        (Principal(kind="key", scopes=(f"{SCOPE}:write",)), True, True, True, False),
        (Principal(kind="key", scopes=(f"{SCOPE}:read",)), True, True, False, False),
        (Principal(kind="user", id="ann", scopes=(f"{SCOPE}:read",)), True, True, False, False),
        (Principal(kind="key", id="ann", scopes=("dataset:other:write",)), False, False, False, False),
        (Principal(kind="user", id="bob", roles=("administrator",)), False, False, False, False),
        (Principal(kind="user", id="ann", project="other"), False, False, False, False),
        (Principal(kind="key", scopes=(f"{SCOPE}:write",), project="other"), False, False, False, False),
        (ANONYMOUS, False, False, False, False),
    ],
)
def test_who_may_do_what(caller: Principal, reads: bool, reads_all: bool, writes: bool, owns: bool) -> None:
    private, public = dataset(), dataset(public=True)
    assert rules.can_read(private, caller) is reads
    assert rules.can_read(public, caller) is (caller.project == "default")
    for known in (private, public):
        assert rules.can_read_all(known, caller) is reads_all
        assert rules.can_write(known, caller) is writes
        assert rules.is_owner(known, caller) is owns


def test_not_yours_is_said_like_not_there() -> None:
    bob = Principal(kind="user", id="bob")
    refusals = []
    for known in (dataset(), None):
        with pytest.raises(NotFound) as refusal:
            rules.for_owner(known, bob)
        refusals.append((refusal.value.status, refusal.value.code, refusal.value.detail))
    assert refusals[0] == refusals[1]


def test_only_people_own_datasets() -> None:
    with pytest.raises(Unauthorized):
        rules.person(ANONYMOUS)
    with pytest.raises(Forbidden):
        rules.person(Principal(kind="key", id="k"))


def test_a_change_of_an_older_version_is_refused() -> None:
    rules.at_version(dataset(), None)
    rules.at_version(dataset(), 1)
    with pytest.raises(Refusal) as refusal:
        rules.at_version(dataset(), 2)
    assert (refusal.value.status, refusal.value.code) == (412, "changed_meanwhile")


def test_a_deletion_is_undone_within_24_hours_by_the_owner() -> None:
    gone = msgspec.structs.replace(dataset(), deleted_at=AT)
    assert rules.restorable(gone, ANN, AT + timedelta(hours=23)) is gone
    with pytest.raises(NotFound):
        rules.restorable(gone, ANN, AT + timedelta(hours=24))
    with pytest.raises(NotFound):
        rules.restorable(gone, Principal(kind="user", id="bob"), AT)
