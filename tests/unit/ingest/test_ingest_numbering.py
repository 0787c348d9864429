"""What becomes of a batch of writes, without a database."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from services.ingest.formats import Item, Items, Malformed, hash_of
from services.ingest.numbering import Asked, Desk, Plan, arrays
from services.ingest.rules import Known
from services.ingest.values import from_json
from shared.contracts.base import ANONYMOUS, Principal
from shared.contracts.ingest import (
    EntryStored,
    ReadingRejected,
    ReadingsStored,
    ReadingsWritten,
    Variable,
    WriteReadings,
)
from shared.errors import Forbidden, Invalid, NotFound, Refusal

ANN = Principal(kind="user", id="ann")
AT = datetime(2026, 11, 20, tzinfo=UTC)


def variable(tag: str, field: int, retired: bool = False) -> Variable:
    return Variable(tag=tag, field=field, name="", unit="", retired=retired)


def dataset(number: int = 1, *, public: bool = False, last_entry: int = 0) -> Known:
    return Known(
        number=number,
        id=UUID(int=number),
        project="default",
        owner="ann",
        name="",
        description="",
        public=public,
        version=1,
        created_at=AT,
        deleted_at=None,
        variables=(variable("temp", 1), variable("old", 2, retired=True), variable("wind", 3)),
        last_entry=last_entry,
        entries=last_entry,
        stored=last_entry,
        duplicates=0,
        expired=0,
        rejected={},
        first_at=None,
        last_at=None,
        cleared=0,
        parts=0,
    )


def item(index: int, own_id: str = "", minutes: int = 0, **values: str) -> Item:
    stored = [(tag, from_json(raw)) for tag, raw in (values or {"temp": "1"}).items()]
    return Item(index, AT + timedelta(minutes=minutes), stored, hash_of(own_id) if own_id else None)


BAD = ReadingRejected(index=9, code="wrong_type", message="")


def ask(
    items: Items | Refusal,
    number: int = 1,
    caller: Principal = ANN,
    *,
    strict: bool = False,
    source: str = "",
    position: int = 0,
) -> Asked:
    write = WriteReadings(
        dataset_id=UUID(int=number), format="json", body=b"", strict=strict, source=source, position=position
    )
    return Asked(write, caller, items)


def decide(
    asked: Sequence[Asked],
    *known: Known,
    own_ids: dict[tuple[int, UUID], EntryStored] | None = None,
    positions: dict[tuple[int, str], int] | None = None,
) -> Plan:
    return Desk({one.id: one for one in known}, own_ids or {}, positions or {}).decide(asked)


def written(plan: Plan, index: int = 0) -> ReadingsWritten:
    outcome = plan.outcomes[index]
    assert not isinstance(outcome, Refusal), outcome
    return outcome.reply


def numbers(plan: Plan, index: int = 0) -> list[int]:
    return [entry.entry for entry in written(plan, index).entries]


def refused(plan: Plan, index: int = 0) -> Refusal:
    outcome = plan.outcomes[index]
    assert isinstance(outcome, Refusal)
    return outcome


def test_entries_go_on_from_the_last_one_through_all_writes_of_a_batch() -> None:
    plan = decide(
        [ask([item(0), item(1)]), ask([item(0)], number=2), ask([item(0)])], dataset(last_entry=7), dataset(2)
    )
    assert [numbers(plan, 0), numbers(plan, 1), numbers(plan, 2)] == [[8, 9], [1], [10]]
    assert [(row[0], row[3]) for row in plan.rows] == [(8, 1), (9, 1), (1, 2), (10, 1)]
    assert (plan.accounts[1].last_entry, plan.accounts[1].stored, plan.accounts[2].last_entry) == (10, 10, 1)


def test_a_rejected_reading_takes_no_number() -> None:
    plan = decide([ask([item(0), BAD, item(2)])], dataset())
    assert numbers(plan) == [1, 2]
    assert written(plan).rejected == (BAD,)
    assert plan.accounts[1].rejected == {"wrong_type": 1}


def test_the_event_tells_first_last_and_latest_time() -> None:
    plan = decide([ask([item(0, minutes=5), item(1)])], dataset())
    outcome = plan.outcomes[0]
    assert not isinstance(outcome, Refusal)
    (event,) = outcome.events
    assert isinstance(event, ReadingsStored)
    assert (event.first, event.last, event.last_at) == (1, 2, AT + timedelta(minutes=5))
    assert (plan.accounts[1].first_at, plan.accounts[1].last_at) == (AT, AT + timedelta(minutes=5))


def test_an_own_id_is_stored_once_within_a_write_within_a_batch_and_ever() -> None:
    stored = {(1, hash_of("old")): EntryStored(entry=3, at=AT)}
    plan = decide(
        [
            ask([item(0, "a"), item(1, "a"), item(2, "old")]),
            ask([item(0, "a")]),
            ask([item(0, "a")], number=2),
        ],
        dataset(last_entry=7),
        dataset(2),
        own_ids=stored,
    )
    assert [(entry.entry, entry.duplicate) for entry in written(plan).entries] == [
        (8, False),
        (8, True),
        (3, True),
    ]
    assert numbers(plan, 1) == [8]
    assert written(plan, 1).entries[0].duplicate
    assert not written(plan, 2).entries[0].duplicate
    assert plan.accounts[1].duplicates == 3
    assert len(plan.rows) == 2


def test_a_batch_of_an_import_is_stored_once() -> None:
    plan = decide(
        [
            ask([item(0)], source="s", position=5),
            ask([item(0), item(1)], source="s", position=9),
            ask([item(0), BAD], source="s", position=9),
            ask([item(0)], source="other", position=5),
        ],
        dataset(),
        positions={(1, "s"): 5},
    )
    assert [written(plan, index).skipped for index in range(4)] == [1, 0, 2, 0]
    assert plan.positions == {(1, "s"): 9, (1, "other"): 5}
    assert plan.accounts[1].duplicates == 3
    assert len(plan.rows) == 3


def test_an_import_of_which_nothing_is_stored_stays_where_it_is() -> None:
    plan = decide([ask([BAD], source="s", position=5)], dataset())
    assert refused(plan).code == "nothing_stored"
    assert plan.positions == {}


def test_nothing_stored_is_a_refusal_that_lists_and_counts_everything() -> None:
    plan = decide([ask([BAD, item(1, colour="1")])], dataset())
    refusal = refused(plan)
    assert isinstance(refusal, Invalid)
    assert (refusal.status, refusal.code) == (422, "nothing_stored")
    assert [(error.path, error.code) for error in refusal.errors] == [
        ("9", "wrong_type"),
        ("1", "unknown_variable"),
    ]
    assert plan.accounts[1].rejected == {"wrong_type": 1, "unknown_variable": 1}


def test_no_reading_at_all_is_a_refusal_too() -> None:
    assert refused(decide([ask([])], dataset())).code == "nothing_stored"


def test_strict_is_all_or_nothing_and_the_ledger_still_adds_up() -> None:
    plan = decide([ask([item(0, "a"), BAD, item(2)], strict=True), ask([item(0, "a")])], dataset())
    assert refused(plan).code == "strict"
    assert plan.accounts[1].rejected == {"wrong_type": 1, "strict": 2}
    assert numbers(plan, 1) == [1]
    assert not written(plan, 1).entries[0].duplicate


def test_unknown_and_retired_variables_are_told_apart() -> None:
    plan = decide([ask([item(0), item(1, old="1"), item(2, old="1", colour="1")])], dataset())
    assert [one.code for one in written(plan).rejected] == ["retired_variable", "unknown_variable"]
    assert "colour" in written(plan).rejected[1].message


def test_a_body_that_cannot_be_read_is_refused_and_counted() -> None:
    plan = decide([ask(Malformed("no JSON"))], dataset())
    assert refused(plan).status == 400
    assert plan.accounts[1].rejected == {"malformed": 1}


def test_a_stranger_learns_nothing_and_leaves_no_trace() -> None:
    bob = Principal(kind="user", id="bob")
    elsewhere = Principal(kind="user", id="ann", project="other")
    limited = Principal(kind="user", id="ann", scopes=("dataset:1:read",))
    reader = Principal(kind="key", scopes=(f"dataset:{UUID(int=1)}:read",))
    callers = [ANONYMOUS, bob, elsewhere, limited, reader]
    plan = decide([ask(Malformed("no JSON"), caller=caller) for caller in callers], dataset())
    assert [type(refused(plan, index)) for index in range(5)] == [NotFound] * 4 + [Forbidden]
    assert plan.accounts == {}
    assert isinstance(refused(decide([ask([item(0)])])), NotFound)


def test_a_write_key_writes_and_a_public_dataset_is_only_read() -> None:
    writer = Principal(kind="key", scopes=(f"dataset:{UUID(int=1)}:write",))
    assert numbers(decide([ask([item(0)], caller=writer)], dataset())) == [1]
    assert isinstance(refused(decide([ask([item(0)], caller=ANONYMOUS)], dataset(public=True))), Forbidden)


good_items = st.builds(item, st.just(0), st.sampled_from(["", "", "a", "b"]))
some_items = st.one_of(good_items, st.just(BAD), st.just(item(0, colour="1")))
some_writes = st.builds(
    lambda items, number, strict, imported: ask(
        items, number, strict=strict, source="s" if imported else "", position=imported
    ),
    st.lists(some_items, max_size=4),
    st.sampled_from([1, 2]),
    st.booleans(),
    st.integers(0, 3),
)


@given(st.lists(some_writes, max_size=8))
def test_whatever_a_batch_is_numbers_have_no_holes_and_the_ledger_adds_up(writes: list[Asked]) -> None:
    plan = decide(writes, dataset(1, last_entry=7), dataset(2))
    assert len(plan.outcomes) == len(writes)
    for number, start in ((1, 7), (2, 0)):
        entries = [row[0] for row in plan.rows if row[3] == number]
        assert entries == list(range(start + 1, start + 1 + len(entries)))
        sent = sum(
            len(one.items)
            for one in writes
            if one.write.dataset_id == UUID(int=number) and not isinstance(one.items, Refusal)
        )
        account = plan.accounts.get(number)
        if account is None:
            assert sent == 0
            continue
        assert account.last_entry == start + len(entries)
        assert account.stored - start + account.duplicates + account.rejected.total() == sent
        hashes = [own_id for own_id in plan.own_ids if own_id[0] == number]
        assert len(hashes) == len(set(hashes)) <= 2


def test_a_row_is_as_short_as_it_can_be() -> None:
    row = decide([ask([item(0, temp="1")]), ask([item(0, wind='"x"')])], dataset()).rows
    assert (row[0][2], row[0][4], row[0][5]) == (1, [1.0], None)
    assert (row[1][2], row[1][4], row[1][5]) == (0, None, [None, None, "tx"])


def test_the_64th_field_has_its_bit() -> None:
    _, _, whole = arrays({64: (1.0, True, None), 1: (2.0, True, None)})
    assert whole == -(2**63) + 1
