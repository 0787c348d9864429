"""The load that comes at its own pace."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from benchmarks.open_loop import Answers, Kind, Plan, raw, run

OK = b"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
SHED = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 2\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize("cut", range(1, len(OK + SHED)))
def test_answers_are_found_wherever_the_stream_is_cut(cut: int) -> None:
    answers, stream = Answers(), OK + SHED
    found = answers.feed(stream[:cut]) + answers.feed(stream[cut:])
    assert found == [(201, ""), (503, "2")]


def test_a_request_is_whole():
    text = raw("POST", "/v1/x", "127.0.0.1:1", {"X-API-Key": "k"}, "{}")
    assert text == "POST /v1/x HTTP/1.1\r\nHost: 127.0.0.1:1\r\nX-API-Key: k\r\nContent-Length: 2\r\n\r\n{}"


async def _with(answer: bytes, kind: Kind) -> dict[str, int]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    outcome = (await run(Plan(host="127.0.0.1", port=port, seconds=0.2, kinds=[kind])))[kind.name]
    server.close()
    await asyncio.wait_for(server.wait_closed(), 5)
    return {
        "due": outcome.due,
        "sent": outcome.sent,
        "accepted": outcome.accepted,
        "told when": outcome.retry_after.get("2", 0),
    }


ASK = raw("GET", "/", "127.0.0.1", {})


async def test_everything_due_is_sent_and_every_answer_is_counted():
    counted = await _with(OK, Kind(name="calm", rate=200, connections=40, requests=[ASK]))
    assert counted["due"] == counted["sent"] == counted["accepted"] > 30


async def test_refusals_are_counted_with_their_retry_after():
    counted = await _with(SHED, Kind(name="shed", rate=100, connections=40, chunk=2, requests=[ASK]))
    assert counted["told when"] == counted["sent"] > 0
    assert counted["accepted"] == 0
