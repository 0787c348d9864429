"""Whatever is sent, the answer is a 4xx with a reason, and the next request is served."""

from __future__ import annotations

import gzip

import pytest

from services.gateway.http.problems import PROBLEMS
from shared.vault import Vault
from tests.unit.gateway.door import Answer, House, open_house

HOST = b"Host: localhost\r\n"
TYPE = b"Content-Type: application/json\r\n"
SETUP = b"POST /v1/setup HTTP/1.1\r\n" + HOST
GOOD = b'{"name":"ann","email":"a@b.c","password":"correct horse"}'


def post(body: bytes, headers: bytes = TYPE) -> bytes:
    return SETUP + headers + b"Content-Length: %d\r\n\r\n" % len(body) + body


BAD = {
    "half an object": (post(b'{"name":'), 400, "malformed_json"),
    "no JSON at all": (post(b"name=ann"), 400, "malformed_json"),
    "no body": (post(b""), 400, "malformed_json"),
    "two values": (post(b"{}{}"), 400, "malformed_json"),
    "NaN": (post(b'{"name": NaN}'), 400, "malformed_json"),
    "a list": (post(b"[]"), 422, "invalid"),
    "a number": (post(b"1"), 422, "invalid"),
    "null": (post(b"null"), 422, "invalid"),
    "wrong types": (post(b'{"name":1,"email":[],"password":{}}'), 422, "invalid"),
    "a number nobody can hold": (post(b'{"name":1e999}'), 422, "invalid"),
    "bad UTF-8": (post(b'{"name":"\xff\xfe"}'), 400, "not_utf8"),
    "UTF-16": (post('{"name":"ann"}'.encode("utf-16")), 400, "malformed_json"),
    "half a surrogate pair": (post(b'{"name":"\\ud800"}'), 400, "malformed_json"),
    "NUL in text": (post(GOOD.replace(b"ann", b"a\\u0000n")), 422, "invalid"),
    "200,000 open brackets": (post(b"[" * 200_000), 400, "too_deep"),
    "200,000 open objects": (post(b'{"a":' * 50_000), 400, "too_deep"),
    "deep in a field": (post(b'{"name":' + b"[" * 100_000), 400, "too_deep"),
    "unknown charset": (post(GOOD, TYPE[:-2] + b"; charset=klingon\r\n"), 415, "unsupported_media_type"),
    "another charset": (post(GOOD, TYPE[:-2] + b"; charset=latin-1\r\n"), 415, "unsupported_media_type"),
    "no content type": (post(GOOD, b""), 415, "unsupported_media_type"),
    "a form": (
        post(b"name=ann", b"Content-Type: application/x-www-form-urlencoded\r\n"),
        415,
        "unsupported_media_type",
    ),
    "XML": (post(b"<a/>", b"Content-Type: text/xml\r\n"), 415, "unsupported_media_type"),
    "a content type of rubbish": (
        post(GOOD, b"Content-Type: \xff\xfe;;;=\r\n"),
        415,
        "unsupported_media_type",
    ),
    "a gzip bomb": (
        post(gzip.compress(b"0" * 50_000_000), TYPE + b"Content-Encoding: gzip\r\n"),
        415,
        "unsupported_media_type",
    ),
    "a body that says it is brotli": (
        post(GOOD, TYPE + b"Content-Encoding: br\r\n"),
        415,
        "unsupported_media_type",
    ),
    "a body beyond the limit": (SETUP + TYPE + b"Content-Length: 9999999\r\n\r\n{", 413, "too_large"),
    "a length of rubbish": (SETUP + TYPE + b"Content-Length: ten\r\n\r\n{}", 400, "bad_request"),
    "a negative length": (SETUP + TYPE + b"Content-Length: -1\r\n\r\n{}", 400, "bad_request"),
    "two lengths": (SETUP + TYPE + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}a", 400, "bad_request"),
    "length and chunks": (
        SETUP + TYPE + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
        "bad_request",
    ),
    "chunks of rubbish": (SETUP + TYPE + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n", 400, "bad_request"),
    "unknown transfer encoding": (SETUP + TYPE + b"Transfer-Encoding: cow\r\n\r\n{}", 400, "bad_request"),
    "no HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, "bad_request"),
    "a version of rubbish": (b"GET / HTTP/9.9\r\nHost: x\r\n\r\n", 400, "bad_request"),
    "no version": (b"GET /healthz\r\nHost: x\r\n\r\n", 400, "bad_request"),
    "a version from long ago": (b"GET /healthz HTTP/0.9\r\nHost: x\r\n\r\n", 400, "bad_request"),
    "a version of another protocol": (b"GET /healthz HTTP/2.0\r\nHost: x\r\n\r\n", 400, "bad_request"),
    "an expectation of rubbish": (
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nExpect: \xff\xfe\r\n\r\n",
        417,
        "expectation_failed",
    ),
    "a NUL in a header": (b"GET / HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n", 400, "bad_request"),
    "a folded header": (b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n", 400, "bad_request"),
    "a header without a colon": (b"GET / HTTP/1.1\r\nHost x\r\n\r\n", 400, "bad_request"),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400, "bad_request"),
    "20 KiB of one header": (
        b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 20_480 + b"\r\n\r\n",
        431,
        "headers_too_large",
    ),
    "40 KiB of headers": (
        b"GET / HTTP/1.1\r\nHost: x\r\n"
        + b"".join(b"A%d: %s\r\n" % (n, b"b" * 4_000) for n in range(10))
        + b"\r\n",
        431,
        "headers_too_large",
    ),
    "101 headers": (
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"A%d: b\r\n" % n for n in range(101)) + b"\r\n",
        431,
        "headers_too_large",
    ),
    "an address of 20 KiB": (b"GET /" + b"a" * 20_480 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414, "uri_too_long"),
    "an unknown path": (b"GET /v1/nothing HTTP/1.1\r\nHost: x\r\n\r\n", 404, "not_found"),
    "a path of rubbish": (b"GET /v1/%ff%00/../x HTTP/1.1\r\nHost: x\r\n\r\n", 404, "not_found"),
    "an id of rubbish": (b"GET /v1/datasets/%00%ff HTTP/1.1\r\nHost: x\r\n\r\n", 422, "invalid"),
    "a query that is not UTF-8": (b"GET /v1/datasets/a?x=%ff HTTP/1.1\r\nHost: x\r\n\r\n", 400, "not_utf8"),
    "an unknown query": (b"GET /healthz?x=1 HTTP/1.1\r\nHost: x\r\n\r\n", 422, "invalid"),
    "a wrong method": (b"PUT /v1/setup HTTP/1.1\r\nHost: x\r\n\r\n", 405, "method_not_allowed"),
    "a method of WebDAV": (b"PROPFIND /v1/setup HTTP/1.1\r\nHost: x\r\n\r\n", 405, "method_not_allowed"),
    "an unknown method": (b"BREW /v1/setup HTTP/1.1\r\nHost: x\r\n\r\n", 400, "bad_request"),
    "an unknown expectation": (
        b"GET / HTTP/1.1\r\nHost: x\r\nExpect: tea\r\n\r\n",
        417,
        "expectation_failed",
    ),
    "an expectation on no path": (
        b"GET /q HTTP/1.1\r\nHost: x\r\nExpect: tea\r\n\r\n",
        417,
        "expectation_failed",
    ),
    "a bad idempotency key": (post(GOOD, TYPE + b"Idempotency-Key: a b\r\n"), 400, "bad_header"),
    "an empty idempotency key": (post(GOOD, TYPE + b"Idempotency-Key: \r\n"), 400, "bad_header"),
    "token and key": (
        b"GET /v1/datasets HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer a\r\nX-API-Key: b\r\n\r\n",
        400,
        "bad_header",
    ),
}


@pytest.mark.parametrize("name", BAD)
async def test_bad_input_is_answered_with_a_reason(house: House, name: str) -> None:
    sent, status, code = BAD[name]
    answer = await house.raw(sent)
    assert (answer.status, answer.json["code"]) == (status, code), answer
    assert_is_problem(answer)
    assert (await house.request("GET", "/healthz")).status == 200


def assert_is_problem(answer: Answer) -> None:
    problem = answer.json
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert problem["status"] == answer.status
    assert problem["type"] == f"/problems/{problem['code']}"
    assert problem["title"] == PROBLEMS[problem["code"]].title
    assert problem["detail"]
    assert problem["request_id"]


async def test_all_mistakes_are_named_at_once(house: House, token: str) -> None:
    answer = await house.request(
        "POST",
        "/v1/datasets",
        token=token,
        json={
            "description": 5,
            "public": "yes",
            "colour": "red",
            "variables": [{"tag": "t"}, {"tag": "", "unit": 1, "x": 2}, 7, {"tag": "u", "field": 65}],
        },
    )
    assert answer.status == 422
    found = {(error["in"], error["path"], error["code"]) for error in answer.json["errors"]}
    assert found == {
        ("body", "name", "required"),
        ("body", "description", "wrong_type"),
        ("body", "public", "wrong_type"),
        ("body", "colour", "unknown_field"),
        ("body", "variables[1].tag", "too_short"),
        ("body", "variables[1].unit", "wrong_type"),
        ("body", "variables[1].x", "unknown_field"),
        ("body", "variables[2]", "wrong_type"),
        ("body", "variables[3].field", "too_large"),
    }


async def test_mistakes_of_path_query_and_body_come_together(house: House, token: str) -> None:
    answer = await house.request(
        "GET",
        "/v1/datasets/7/readings?limit=0&limit=1&order=up&start=yesterday&end=2026-01-01T00:00:00&colour=red",
        token=token,
    )
    found = {(error["in"], error["path"], error["code"]) for error in answer.json["errors"]}
    assert answer.status == 422
    assert found == {
        ("path", "dataset_id", "invalid_uuid"),
        ("query", "limit", "repeated"),
        ("query", "order", "not_allowed"),
        ("query", "start", "invalid_time"),
        ("query", "end", "invalid_time"),
        ("query", "colour", "unknown_field"),
    }


async def test_the_limit_is_named(vault: Vault) -> None:
    async with open_house(vault, body_bytes=1_000, readings_bytes=2_000) as house:
        answer = await house.raw(post(b" " * 1_001))
        assert (answer.status, answer.json["code"]) == (413, "too_large")
        assert "1,000 bytes" in answer.json["detail"]

        made = await house.dataset(house.services.token())
        path = f"/v1/datasets/{made['id']}/readings"
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nX-API-Key: {made['write_key']}\r\n".encode() + TYPE
        chunk = b"3e8\r\n" + b"1" * 1_000 + b"\r\n"
        answer = await house.raw(head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 3)
        assert answer.status == 413
        assert "2,000 bytes" in answer.json["detail"]
        answer = await house.raw(head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 2 + b"0\r\n\r\n")
        assert answer.status == 201


async def test_405_lists_the_methods_and_415_the_types(house: House, token: str) -> None:
    answer = await house.request("PUT", "/v1/datasets", token=token)
    assert answer.headers["Allow"] == "GET, HEAD, OPTIONS, POST"
    made = await house.dataset(token)
    answer = await house.request("POST", f"/v1/datasets/{made['id']}/readings", token=token, data=b"x")
    assert answer.status == 415
    assert "text/csv" in answer.headers["Accept"]
    assert "application/x-ndjson" in answer.json["detail"]


@pytest.mark.parametrize("body", [GOOD, GOOD.replace(b"ann", b"a\\\\u0000n")])
async def test_good_input_is_served_on_the_same_path(house: House, body: bytes) -> None:
    assert (await house.raw(post(body))).status == 201
