"""The harness of `make faults` in its short form: a row that holds, and the same without its protection."""

from __future__ import annotations

import pytest

from tests.faults.__main__ import SHORT_DEPTH
from tests.faults.rows import r03
from tests.faults.run import run

pytestmark = pytest.mark.timeout(200)
SEED = 1


async def test_a_row_counts_nothing_lost_and_nothing_doubled():
    result = await run(r03.ROW, SHORT_DEPTH, SEED, print)
    assert result.passed, result.missed
    assert result.faults >= 1
    assert result.count.acknowledged >= SHORT_DEPTH.least
    assert result.count.stored == result.count.acknowledged + result.count.recovered


async def test_the_same_row_without_its_protection_finds_doubles():
    result = await run(r03.ROW, SHORT_DEPTH, SEED, print, bare=True)
    assert result.count.doubled > 0
    assert result.passed, result.missed
