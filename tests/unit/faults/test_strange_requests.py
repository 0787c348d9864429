"""The clients of S7 and S8 do what they are meant to, and see what is wrong with an answer."""

from __future__ import annotations

import json

import pytest

from services.gateway.http.problems import problem_body
from shared.vault import Vault
from tests.faults import malformed, slow, spoilt
from tests.faults.malformed import NoHttp, answers, mistake
from tests.faults.wire import Answer
from tests.unit.gateway.door import open_house

ORDER = spoilt.Order("http://127.0.0.1:1", "a-dataset", "A" * 16, 8 * len(spoilt.KINDS), "a seed")
PROBLEM = {"content-type": malformed.PROBLEM}
SAID = json.dumps(problem_body("not_found", 404, "", "an id")).encode()


def test_the_same_seed_spoils_the_same_and_every_kind_is_sent() -> None:
    sent = spoilt.stream(ORDER)
    assert sent == spoilt.stream(ORDER)
    assert {name for name, _ in sent} == {make.__name__ for make in spoilt.KINDS}
    assert len({data for _, data in sent}) > len(sent) / 2


@pytest.mark.parametrize(
    ("answer", "is_wrong"),
    [
        (Answer(500, PROBLEM, SAID), True),
        (Answer(404, PROBLEM, SAID), False),
        (Answer(400, PROBLEM, SAID), True),
        (Answer(404, {"content-type": "text/plain"}, b"no"), True),
        (Answer(404, PROBLEM, b"no"), True),
        (Answer(404, PROBLEM, b'{"status": 404}'), True),
        (Answer(200, {}, b"yes"), False),
    ],
)
def test_an_answer_is_a_success_or_a_whole_problem(answer: Answer, is_wrong: bool) -> None:
    assert bool(mistake(answer)) == is_wrong


def test_pipelined_answers_are_told_apart_and_another_protocol_is_none() -> None:
    one = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    assert [answer.body for answer in answers(one + one, b"GET /")] == [b"ok", b"ok"]
    for said in (b"HTTP/2.0 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok", b"hello"):
        with pytest.raises(NoHttp):
            answers(said, b"GET /")


async def test_nothing_that_is_spoilt_is_our_mistake(vault: Vault) -> None:
    async with open_house(vault) as house:
        made = await house.dataset(house.services.token())
        order = spoilt.Order(house.url, made["id"], made["write_key"], 8 * len(spoilt.KINDS), "another seed")
        found = await malformed.send(order)
    assert found.wrong == []
    assert found.requests == order.requests
    assert found.answers > found.requests / 2


async def test_slow_clients_are_closed_and_come_again(vault: Vault) -> None:
    limits = {"header_seconds": 0.3, "body_seconds": 0.3, "idle_seconds": 0.3}
    async with open_house(vault, **limits) as house:
        order = slow.Order(house.url, 2, {"half a header": 3, "slow body": 3, "idle": 3})
        found = await slow.Attack(order).run()
    for kind in found.values():
        assert kind.opened > kind.closed >= 3
        assert kind.overdue == kind.refused == 0
