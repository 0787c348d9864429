"""A line says what happened, during which request, and never a secret."""

from __future__ import annotations

import io
import json
import logging
import os
import pty
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from shared import context, logs
from tests.log import configured

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def lines() -> Iterator[Lines]:
    """Logging as a service has it, and what it printed."""
    stream = io.StringIO()
    with configured(stream):
        yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_carries_the_ids_of_its_request(lines: Lines) -> None:
    with context.bind(request_id="r-1", traceparent=TRACE, frame="f-1"):
        structlog.get_logger().info("session_opened", account="ann")
    [line] = lines()
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "info",
        "service": "auth",
        "event": "session_opened",
        "request_id": "r-1",
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "frame_id": "f-1",
        "account": "ann",
    }


def test_ids_end_with_their_block(lines: Lines) -> None:
    with context.bind(request_id="outer"):
        with context.bind(request_id="inner"):
            pass
        structlog.get_logger().info("here")
    structlog.get_logger().info("there")
    assert [line.get("request_id") for line in lines()] == ["outer", None]


def test_libraries_speak_in_the_same_form(lines: Lines) -> None:
    with context.bind(request_id="r-1"):
        logging.getLogger("aiormq.connection").warning("lost %s", "amqp://auth:hunter2@127.0.0.1/")
    logging.getLogger("aiohttp.access").info("not interesting")
    [line] = lines()
    assert line["event"] == "lost amqp://auth:***@127.0.0.1/"
    assert (line["logger"], line["request_id"], line["service"]) == ("aiormq.connection", "r-1", "auth")


def test_a_traceback_is_part_of_its_line(lines: Lines) -> None:
    try:
        raise KeyError("postgresql://posthouse_auth:hunter2@db/x")
    except KeyError:
        structlog.get_logger().exception("failed")
    [line] = lines()
    assert "KeyError" in line["exception"]
    assert "hunter2" not in line["exception"]


SECRETS = ["password", "new_password", "access_token", "Authorization", "cookie", "secret_key", "X-API-Key"]


@pytest.mark.parametrize("key", [*SECRETS, "key"])
def test_a_secret_is_known_by_its_name(lines: Lines, key: str) -> None:
    structlog.get_logger().info("seen", **{key: "hunter2"}, headers={key: "hunter2"}, rows=[{key: "hunter2"}])
    assert "hunter2" not in json.dumps(lines())


@pytest.mark.parametrize("key", ["routing_key", "idempotency_key", "dataset", "monkey", "author"])
def test_what_is_no_secret_stays(lines: Lines, key: str) -> None:
    structlog.get_logger().info("seen", **{key: "plain"})
    assert lines()[0][key] == "plain"


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer hunter2hunter2",
        "GET /update?api_key=hunter2hunter2&field1=3",
        "redis://:hunter2hunter2@cache:6379/0",
        "OpenSession(name='ann', password='hunter2 hunter2')",
        '{"password": "hunter2 \\" hunter2", "name": "ann"}',
        "psql password=hunter2 dbname=x",
        "got eyJhbGciOiJFZERTQSJ9.eyJodW50ZXIyIjoxfQ.hunter2hunter2 from somebody",
        "no session has phr_0123456789abcdef_hunter2hunter2",
        "Set-Cookie: __Host-posthouse=hunter2hunter2hunter2; Path=/",
    ],
)
def test_a_secret_within_a_text_is_hidden(lines: Lines, text: str) -> None:
    structlog.get_logger().warning(text)
    assert "hunter2" not in json.dumps(lines())


@pytest.mark.parametrize("text", ["the token: expired", "no such key: 'porch'", "password too short"])
def test_a_text_about_secrets_that_holds_none_stays(lines: Lines, text: str) -> None:
    structlog.get_logger().warning(text)
    assert lines()[0]["event"] == text


HALF = st.characters(categories=["Cs"])  # as header bytes that are no UTF-8 come
VALUES = (
    st.integers()
    | st.text(HALF, max_size=2)
    | st.none()
    | st.binary(max_size=4)
    | st.floats()
    | st.text()
    | st.lists(st.text(), max_size=2)
)


@given(st.dictionaries(st.text(max_size=8), VALUES))
def test_whatever_a_line_holds_it_is_one_line_of_json(fields: dict[str, Any]) -> None:
    printed = logs._to_json(None, "info", logs.mask_secrets(None, "info", dict(fields)))
    assert "\n" not in printed
    json.loads(printed)


def test_on_a_terminal_lines_are_for_people() -> None:
    leader, follower = pty.openpty()
    with os.fdopen(follower, "w") as terminal, configured(terminal):
        with context.bind(request_id="r-1"):
            structlog.get_logger().warning("session_lost", account="ann", password="hunter2")
        logging.getLogger("aiormq").error("gone: %s", "amqp://auth:hunter2@127.0.0.1/")
        terminal.flush()
        with open(leader) as screen:
            first, second = screen.readline(), screen.readline()
    assert re.search(r"\d\d:\d\d:\d\d\.\d{3}.*warning.*session_lost.*account.*ann.*request_id.*r-1", first)
    assert re.search(r"error.*gone: amqp://auth:\*\*\*@127", second)
    assert "hunter2" not in first + second


def test_warnings_and_worse_are_shipped_as_they_are_printed(lines: Lines) -> None:
    shipped: list[Any] = []
    logs.on_ship(shipped.append)
    structlog.get_logger().info("calm")
    structlog.get_logger().warning("grave", password="hunter2")
    logging.getLogger("asyncpg").error("worse")
    assert shipped == lines()[1:]


def test_lines_about_storing_logs_stay_at_home(lines: Lines) -> None:
    shipped: list[Any] = []
    logs.on_ship(shipped.append)
    with logs.local_only():
        structlog.get_logger().error("the log table is full")
    assert (shipped, len(lines())) == ([], 1)
