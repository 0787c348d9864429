"""What a process remembers of datasets."""

from __future__ import annotations

import msgspec

from services.ingest.store.base import Descriptions
from tests.unit.ingest.test_ingest_numbering import dataset


def test_only_the_version_that_is_stored_is_found() -> None:
    kept = Descriptions()
    one = dataset(1)
    kept.keep(one)
    assert kept.find(1, one.version) is one
    assert kept.find(1, one.version + 1) is None
    changed = msgspec.structs.replace(one, version=one.version + 1)
    kept.keep(changed)
    assert kept.find(1, one.version) is None
    assert kept.find(1, changed.version) is changed


def test_there_are_never_too_many_and_the_oldest_goes() -> None:
    kept = Descriptions(most=2)
    for number in (1, 2, 1, 3):
        kept.keep(dataset(number))
    assert [kept.find(number, 1) is not None for number in (1, 2, 3)] == [True, False, True]
