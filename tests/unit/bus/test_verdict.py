"""The table "How a message ends", row by row."""

from __future__ import annotations

import pytest

from shared.bus.verdict import MOST_ATTEMPTS, Broker, Ending, Verdict, judge


@pytest.mark.parametrize(
    ("ending", "broker", "status"),
    [
        (Ending.DONE, Broker.ACK, 200),
        (Ending.REFUSED, Broker.ACK, 400),
        (Ending.AWAY, Broker.HOLD, 0),
        (Ending.FAILED, Broker.DEAD, 500),
        (Ending.MALFORMED, Broker.DEAD, 400),
        (Ending.UNKNOWN_TOPIC, Broker.DEAD, 502),
        (Ending.NOT_ALLOWED, Broker.DEAD, 0),
        (Ending.TOO_OFTEN, Broker.DEAD, 500),
        (Ending.TOO_OLD, Broker.DEAD, 0),
        (Ending.MISMATCH, Broker.ACK, 422),
        (Ending.EXPIRED, Broker.ACK, 0),
        (Ending.STREAMED, Broker.ACK, 0),
        (Ending.DRAINING, Broker.REQUEUE, 0),
    ],
)
def test_an_ending_is_told_to_the_broker_and_to_the_caller(
    ending: Ending, broker: Broker, status: int
) -> None:
    for seconds_left in (None, 5.0):
        verdict = judge(ending, seconds_left=seconds_left)
        assert (verdict.broker, verdict.status) == (broker, status)


def test_every_ending_has_a_verdict() -> None:
    for ending in Ending:
        for attempt in range(1, MOST_ATTEMPTS + 2):
            for seconds_left in (None, -1.0, 0.0, 5.0, 1e6):
                assert isinstance(judge(ending, attempt=attempt, seconds_left=seconds_left), Verdict)


def test_a_retry_waits_when_nobody_does() -> None:
    assert judge(Ending.RETRY) == Verdict(Broker.WAIT, 0, 10.0)
    assert judge(Ending.RETRY, retry_after=60.0) == Verdict(Broker.WAIT, 0, 600.0)


def test_a_retry_that_is_still_in_time_waits_too() -> None:
    assert judge(Ending.RETRY, seconds_left=11.0).broker is Broker.WAIT


def test_a_retry_that_would_be_too_late_has_no_effect_and_is_503() -> None:
    assert judge(Ending.RETRY, seconds_left=10.0) == Verdict(Broker.ACK, 503)


def test_the_last_attempt_is_preceded_by_the_long_wait_and_followed_by_the_dead_letters() -> None:
    assert judge(Ending.RETRY, attempt=MOST_ATTEMPTS - 1).wait_seconds == 600.0
    assert judge(Ending.RETRY, attempt=MOST_ATTEMPTS).broker is Broker.DEAD


def test_a_busy_key_is_a_conflict_for_a_waiter_and_tried_again_for_nobody() -> None:
    assert judge(Ending.BUSY, seconds_left=5.0) == Verdict(Broker.ACK, 409)
    assert judge(Ending.BUSY).broker is Broker.WAIT
