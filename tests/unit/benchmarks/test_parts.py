"""Which parts are run."""

from __future__ import annotations

import pytest

from benchmarks.__main__ import chosen
from benchmarks.parts import PARTS
from deploy.local.errors import Failure


def test_without_a_name_all_of_them_are_run():
    assert chosen([]) == list(PARTS)


def test_named_parts_are_run_in_their_own_order():
    assert chosen(["ingest", "query"]) == ["query", "ingest"]


def test_rpc_is_query_and_command():
    assert chosen(["rpc"]) == ["query", "command"]


def test_an_unknown_name_is_told_with_those_that_exist():
    with pytest.raises(Failure, match="no part speed; there are noise, rest, query"):
        chosen(["speed"])
