"""What wrk is told and what is read from it."""

from __future__ import annotations

import pytest

from benchmarks.load import MARK, Request, WrongAnswers, figures_of, quoted, script

PRINTED = f"""Running 2s test @ http://127.0.0.1:20001/
  1 threads and 64 connections
Requests/sec:  20553.10
{MARK}{{"requests":41106,"micros":2000011,"p50":2830,"p99":6620,"status":3,"connect":0,"read":1,"write":0,"timeout":2}}
"""


def test_figures_are_read_exactly():
    figures = figures_of(PRINTED)
    assert (figures.requests, figures.p50, figures.p99) == (41_106, 2830, 6620)
    assert figures.seconds == pytest.approx(2.000011)


def test_whatever_is_no_answer_with_a_2xx_is_wrong():
    assert figures_of(PRINTED).wrong == 6


def test_a_burst_without_figures_did_not_work():
    with pytest.raises(WrongAnswers, match="unable to connect"):
        figures_of("unable to connect to 127.0.0.1:1 Connection refused\n")


def test_a_script_says_method_headers_and_body():
    text = script(Request(method="POST", headers={"X-API-Key": "k"}, body='{"text": "a\\nb"}'))
    assert 'wrk.method = "POST"' in text
    assert 'wrk.headers["X-API-Key"] = "k"' in text
    assert r'wrk.body = "{\"text\": \"a\\nb\"}"' in text
    assert "function done" in text


def test_several_paths_take_turns():
    text = script(Request(paths=["/a", "/b"]))
    assert 'local paths = {"/a", "/b"}' in text
    assert "function request" in text


def test_a_lua_string_holds_anything():
    assert quoted('a"b\\c\n') == r'"a\"b\\c\n"'
