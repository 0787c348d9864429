"""What a process says about itself in figures."""

from __future__ import annotations

from collections.abc import Mapping

from shared import http


async def test_what_is_missing_is_among_the_figures() -> None:
    async def away() -> Mapping[str, str]:
        return {"database": "refused"}

    text = (await http.exposition(http.registry(), away)).decode()
    assert "posthouse_ready 0.0" in text
    assert 'posthouse_missing{dependency="database"} 1.0' in text
    assert "process_resident_memory_bytes" in text


async def test_a_process_that_misses_nothing_is_ready() -> None:
    async def nothing() -> Mapping[str, str]:
        return {}

    text = (await http.exposition(http.registry(), nothing)).decode()
    assert "posthouse_ready 1.0" in text
    assert "posthouse_missing{" not in text
