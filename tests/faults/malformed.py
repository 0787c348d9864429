"""Sends raw requests that are spoilt, and looks at every answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from tests.faults.spoilt import Order, stream
from tests.faults.wire import Answer

PROBLEM = "application/problem+json"
LANES = 16
ANSWER_SECONDS = 40.0
NO_BODY = (204, 304)


@dataclass
class Found:
    """What came of it, as one line of JSON."""

    requests: int = 0
    answers: int = 0
    closed: int = 0
    """Requests that got no answer: what is no request at all, or only half of one."""
    statuses: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    """Answers 500, answers that are no problem or no HTTP, and no end within the time."""


class NoHttp(Exception):
    """What came is no sequence of whole answers."""


def answers(said: bytes, asked: bytes) -> list[Answer]:
    """Cut what a server said into answers; raises NoHttp."""
    found = []
    is_head = b"HEAD" in asked[:40] or b"\nHEAD" in asked
    while said:
        head, end, said = said.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        first = lines[0].split(" ")
        if not end or not first[0].startswith("HTTP/1.") or len(first) < 3 or not first[1].isdecimal():
            raise NoHttp(f"{head[:200]!r}")
        fields = (line.partition(":") for line in lines[1:])
        headers = {name.lower(): value.strip() for name, _, value in fields}
        body, said = _body(int(first[1]), headers, said, is_head)
        found.append(Answer(int(first[1]), headers, body))
    return found


def _body(status: int, headers: dict[str, str], said: bytes, is_head: bool) -> tuple[bytes, bytes]:
    if status < 200 or status in NO_BODY or (is_head and said[:7] in (b"", b"HTTP/1.")):
        return b"", said
    if headers.get("transfer-encoding") == "chunked":
        body, end, rest = said.partition(b"0\r\n\r\n")
        if not end:
            raise NoHttp("chunks without an end")
        return body, rest
    length = int(headers.get("content-length", "-1"))
    if not 0 <= length <= len(said):
        raise NoHttp(f"{status} with {len(said)} bytes of {length}")
    return said[:length], said[length:]


def mistake(answer: Answer) -> str:
    """What is wrong with an answer; nothing when it is as the description of the API has it."""
    if answer.status in (500, 502):
        return f"status {answer.status}"
    if answer.status < 400 or "text/html" in answer.headers.get("content-type", ""):
        return ""
    if answer.headers.get("content-type") != PROBLEM:
        return f"{answer.status} is no problem but {answer.headers.get('content-type')!r}"
    if not answer.body:
        return ""  # to HEAD
    try:
        problem = json.loads(answer.body)
    except ValueError:
        return f"{answer.status} with a body that is no JSON"
    wanted = {"type": str, "title": str, "status": int, "code": str, "request_id": str}
    if any(not isinstance(problem.get(name), kind) for name, kind in wanted.items()):
        return f"{answer.status} lacks a member of a problem"
    return "" if problem["status"] == answer.status else f"{answer.status} says {problem['status']}"


async def send(order: Order) -> Found:
    """Send all of them on connections of their own, `LANES` at a time."""
    found = Found()
    waiting = iter(stream(order))

    async def lane() -> None:
        for name, data in waiting:
            found.requests += 1
            said = await _said(order, data, found, name)
            _judge(found, name, data, said)

    await asyncio.gather(*(lane() for _ in range(LANES)))
    return found


async def _said(order: Order, data: bytes, found: Found, name: str) -> bytes:
    """All that is answered until the server closes: nothing more will come from here."""
    parts = urlsplit(order.url)
    said = b""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
            try:
                writer.write(data)
                with contextlib.suppress(OSError):  # it was reset meanwhile; what was answered can be read
                    writer.write_eof()
                while part := await reader.read(1 << 16):
                    said += part
            finally:
                writer.close()
    except ConnectionError:
        return said
    except TimeoutError:
        found.wrong.append(f"{name}: not closed within {ANSWER_SECONDS:.0f} s: {data[:300]!r}")
    return said


def _judge(found: Found, name: str, data: bytes, said: bytes) -> None:
    try:
        heard = answers(said, data)
    except NoHttp as error:
        found.wrong.append(f"{name}: {error}: {data[:300]!r}")
        return
    found.closed += not heard
    found.answers += len(heard)
    for answer in heard:
        found.statuses[str(answer.status)] += 1
        if words := mistake(answer):
            found.wrong.append(f"{name}: {words}: {data[:300]!r}: {answer.body[:300]!r}")


def main(order: dict[str, Any]) -> None:
    """Send what is ordered and say what came of it."""
    print(json.dumps(vars(asyncio.run(send(Order(**order))))), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
