"""What an answer promises: waiting, queued, repeated, unknown."""

from __future__ import annotations

import asyncio
import time

import pytest

from services.gateway.http.incoming import preferences
from shared.bus.requests import OutcomeUnknown, ServiceFailed, Unavailable
from shared.contracts.ingest import CreateDataset, ListDatasets, ResolveKey, WriteReadings
from shared.errors import Refusal, TooMany
from tests.unit.gateway.door import House, read_answer

READING = {"values": {"t": 1}}


@pytest.mark.parametrize(
    ("text", "seconds", "queued", "strict"),
    [
        ("wait=5", 5, False, False),
        ("wait=0", 1, False, False),
        ("wait=99999999999999", 30, False, False),
        ("wait=soon", 10, False, False),
        ("respond-async, wait=2", 2, True, False),
        ("Handling=Strict", 10, False, True),
        ('handling="strict"; x=1, foo=bar', 10, False, True),
        ("handling=lenient", 10, False, False),
        (",,=,;", 10, False, False),
    ],
)
def test_preferences_are_read_or_ignored(text: str, seconds: int, queued: bool, strict: bool) -> None:
    found = preferences(text)
    assert (found.seconds, found.queued, found.strict) == (seconds, queued, strict)


async def test_a_client_says_how_long_it_waits(house: House, token: str) -> None:
    answer = await house.request("GET", "/v1/datasets", token=token, headers={"Prefer": "wait=3"})
    assert answer.headers["Preference-Applied"] == "wait=3"
    assert house.services.last(ListDatasets)[1].seconds == pytest.approx(3, abs=1)


@pytest.mark.parametrize("prefer", ["wait=1", "wait=1, respond-async"])
async def test_whom_nobody_can_tell_is_answered_when_its_patience_ends(
    house: House, token: str, prefer: str
) -> None:
    made = await house.dataset(token)
    house.services.silent[ResolveKey.topic] = asyncio.Event()
    began = time.monotonic()
    answer = await house.request(
        "POST",
        f"/v1/datasets/{made['id']}/readings",
        json=READING,
        headers={"Prefer": prefer, "X-API-Key": made["write_key"]},
    )
    assert (answer.status, answer.json["code"], answer.headers["Retry-After"]) == (503, "unavailable", "1")
    assert time.monotonic() - began < 3


async def test_the_time_it_took_to_tell_who_calls_is_not_waited_again(house: House, token: str) -> None:
    made = await house.dataset(token)
    known = house.services.silent[ResolveKey.topic] = asyncio.Event()
    headers = {"Prefer": "wait=3", "X-API-Key": made["write_key"]}
    path = f"/v1/datasets/{made['id']}/readings"
    asyncio.get_running_loop().call_later(0.5, known.set)
    assert (await house.request("POST", path, json=READING, headers=headers)).status == 201
    assert house.services.last(WriteReadings)[1].seconds < 2.8


async def test_a_body_may_take_longer_than_its_sender_waits_for_the_answer(house: House, token: str) -> None:
    body = b'{"name": "Roof"}'
    head = f"POST /v1/datasets HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nPrefer: wait=1\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", house.door.port)
    writer.write(head.encode())
    asyncio.get_running_loop().call_later(1.5, writer.write, body)
    assert (await read_answer(reader)).status == 201
    assert house.services.last(CreateDataset)[1].seconds == pytest.approx(1, abs=0.5)
    writer.close()


async def test_a_queued_request_is_answered_202_and_its_outcome_can_be_asked(
    house: House, token: str
) -> None:
    made = await house.dataset(token)
    house.services.hold = asyncio.Event()
    accepted = await house.request(
        "POST",
        f"/v1/datasets/{made['id']}/readings",
        token=token,
        json=READING,
        headers={"Prefer": "respond-async"},
    )
    assert accepted.status == 202
    assert accepted.json["accepted"] is True
    name = accepted.json["submission"]
    assert accepted.headers["Location"] == f"/v1/submissions/{name}"
    assert accepted.headers["Preference-Applied"] == "respond-async"
    asked = await house.request("GET", f"/v1/submissions/{name}", token=token)
    assert asked.json == {"submission": name, "state": "queued"}

    house.services.hold = None
    await house.services.submit(*house.services.last(WriteReadings))
    asked = await house.request("GET", f"/v1/submissions/{name}", token=token)
    assert asked.json["state"] == "stored"
    assert asked.json["entries"] == [{"entry": 1, "at": "2026-01-31T12:00:00.000000Z"}]


async def test_a_refused_submission_says_why(house: House, token: str) -> None:
    path = "/v1/datasets/0193ffff-0000-7000-8000-000000000000/readings"
    accepted = await house.request(
        "POST", path, token=token, json=READING, headers={"Prefer": "respond-async"}
    )
    asked = await house.request("GET", accepted.headers["Location"], token=token)
    assert asked.json["state"] == "refused"
    assert (asked.json["problem"]["status"], asked.json["problem"]["code"]) == (404, "not_found")


async def test_only_the_caller_who_submitted_can_ask(house: House, token: str) -> None:
    made = await house.dataset(token)
    accepted = await house.request(
        "POST",
        f"/v1/datasets/{made['id']}/readings",
        token=token,
        json=READING,
        headers={"Prefer": "respond-async"},
    )
    name = accepted.json["submission"]
    other = house.services.token(sub="u2")
    elsewhere = house.services.token(project="other")
    changed = name[:-1] + ("0" if name[-1] != "0" else "1")
    for who, what in ((other, name), (elsewhere, name), (None, name), (token, changed), (token, "x")):
        answer = await house.request("GET", f"/v1/submissions/{what}", token=who)
        assert (answer.status, answer.json["code"]) == (404, "not_found")


async def test_the_same_key_is_the_same_frame_for_the_same_caller_only(house: House, token: str) -> None:
    ids = []
    for who in (token, token, house.services.token(sub="u2")):
        headers = {"Idempotency-Key": "k-1"}
        answer = await house.request("POST", "/v1/datasets", token=who, json={"name": "a"}, headers=headers)
        ids.append((house.services.last(CreateDataset)[1].id, answer.json["id"]))
    assert ids[0] == ids[1]
    assert ids[0][0] != ids[2][0]
    assert f"{ids[0][0]}"[0] == "f"
    again = await house.request(
        "POST", "/v1/datasets", token=token, json={"name": "b"}, headers={"Idempotency-Key": "k-1"}
    )
    assert (again.status, again.json["code"]) == (422, "key_reused")


async def test_without_a_key_every_request_has_its_own_frame(house: House, token: str) -> None:
    first, second = [(await house.dataset(token))["id"] for _ in range(2)]
    assert first != second
    assert house.services.last(CreateDataset)[1].id.version == 7


@pytest.mark.parametrize("key", [None, "k-2"])
async def test_an_unknown_outcome_is_said_with_the_key_to_repeat(
    house: House, token: str, key: str | None
) -> None:
    house.services.failing[CreateDataset.topic] = OutcomeUnknown()
    headers = {"Idempotency-Key": key} if key else {}
    answer = await house.request("POST", "/v1/datasets", token=token, json={"name": "a"}, headers=headers)
    assert (answer.status, answer.json["code"], answer.json["outcome"]) == (504, "outcome_unknown", "unknown")
    assert answer.json.get("idempotency_key") == key
    assert ("twice" in answer.json["detail"]) is (key is None)


FAILURES = [
    (Unavailable("the broker does not answer"), 503, "unavailable", "1"),
    (ServiceFailed("secret detail"), 500, "internal", None),
    (TooMany("slower", retry_after=7), 429, "too_many_requests", "7"),
    (Refusal("", status=409, code=""), 409, "still_running", "1"),
    (Refusal("no", code="brand_new", status=418), 418, "brand_new", None),
    (RuntimeError("secret detail"), 500, "internal", None),
]


@pytest.mark.parametrize(("failure", "status", "code", "retry_after"), FAILURES)
async def test_a_call_that_fails_is_a_problem(
    house: House, token: str, failure: Exception, status: int, code: str, retry_after: str | None
) -> None:
    house.services.failing[ListDatasets.topic] = failure
    answer = await house.request("GET", "/v1/datasets", token=token)
    assert (answer.status, answer.json["code"]) == (status, code)
    assert answer.headers.get("Retry-After") == retry_after
    assert b"secret detail" not in answer.body
    assert answer.json["title"]
    del house.services.failing[ListDatasets.topic]
    assert (await house.request("GET", "/v1/datasets", token=token)).status == 200
