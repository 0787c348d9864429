"""When one more call is refused, and what the caller is told."""

from __future__ import annotations

from shared.bus.pressure import ASK_CALLS, CHANGE_CALLS, CHANGE_SECONDS, Pressure, Want
from shared.bus.requests import Unavailable
from shared.bus.topology import MOST_MESSAGES

TURN = 0.05


def begin(pressure: Pressure, want: Want, calls: int, service: str = "ingest") -> None:
    for _ in range(calls):
        pressure.admit(service, want).began()


def answer(pressure: Pressure, want: Want, seconds: float, calls: int, service: str = "ingest") -> None:
    for _ in range(calls):
        pressure.flow(service, want).ended(seconds)


def refused(pressure: Pressure, want: Want, service: str = "ingest") -> int:
    """Seconds until a repetition makes sense; 0 when it is not refused."""
    try:
        pressure.admit(service, want)
    except Unavailable as error:
        return error.retry_after
    return 0


def test_many_calls_that_are_answered_quickly_are_no_pressure() -> None:
    pressure = Pressure()
    begin(pressure, "ask", 5_000)
    answer(pressure, "ask", 0.02, 10)
    pressure.turn(TURN)
    assert not refused(pressure, "ask")


def test_asking_is_refused_before_changing() -> None:
    pressure = Pressure()
    begin(pressure, "ask", 200)
    begin(pressure, "change", CHANGE_CALLS + 100)
    answer(pressure, "change", 0.04, 10)
    answer(pressure, "ask", 0.01, 10)
    pressure.turn(TURN)
    assert refused(pressure, "ask")
    assert not refused(pressure, "change")
    answer(pressure, "change", 0.5, 10)
    pressure.turn(TURN)
    assert refused(pressure, "change")


def test_one_slow_call_among_quick_ones_refuses_nobody() -> None:
    pressure = Pressure()
    begin(pressure, "ask", 200)
    answer(pressure, "ask", 9.0, 50)
    answer(pressure, "ask", 0.004, 1)
    pressure.turn(TURN)
    assert not refused(pressure, "ask")


def test_few_calls_are_never_refused_however_slow() -> None:
    pressure = Pressure()
    begin(pressure, "ask", ASK_CALLS - 1)
    begin(pressure, "queue", CHANGE_CALLS - 1)
    for _ in range(100):
        pressure.turn(TURN)
    assert not refused(pressure, "queue")
    pressure = Pressure()
    begin(pressure, "ask", ASK_CALLS - 1)
    for _ in range(100):
        pressure.turn(TURN)
    assert not refused(pressure, "ask")


def test_no_answer_at_all_becomes_a_delay() -> None:
    pressure = Pressure()
    begin(pressure, "queue", CHANGE_CALLS)
    turns = 0
    while not refused(pressure, "queue"):
        pressure.turn(TURN)
        turns += 1
    assert CHANGE_SECONDS <= turns * TURN <= CHANGE_SECONDS + 2 * TURN
    begin(pressure, "ask", ASK_CALLS)
    pressure.turn(TURN)
    assert refused(pressure, "ask")
    assert not refused(pressure, "change")


def test_other_services_are_asked_as_ever() -> None:
    pressure = Pressure()
    begin(pressure, "ask", 1_000)
    for _ in range(100):
        pressure.turn(TURN)
    assert refused(pressure, "ask")
    assert not refused(pressure, "ask", "auth")


def test_the_delay_is_forgotten_when_nothing_is_on_its_way() -> None:
    pressure = Pressure()
    begin(pressure, "ask", 100)
    answer(pressure, "ask", 3.0, 100)
    pressure.turn(TURN)
    assert not pressure.is_idle
    pressure.turn(TURN)
    assert pressure.is_idle
    begin(pressure, "ask", 1_000)
    assert not refused(pressure, "ask")


def test_retry_after_is_the_time_what_waits_will_take() -> None:
    pressure = Pressure()
    begin(pressure, "ask", 1_900)
    for _ in range(40):  # 20 a turn are 400 a second
        answer(pressure, "ask", 0.3, 20)
        pressure.turn(TURN)
    assert refused(pressure, "ask") == 3
    assert pressure.flow("ingest", "ask").in_flight == 1_100


def test_a_full_queue_refuses_asking_at_60_and_changing_at_80_percent() -> None:
    pressure = Pressure()
    for share, ask, change in ((0.59, 0, 0), (0.61, 30, 0), (0.79, 30, 0), (0.81, 30, 30)):
        pressure.saw("ingest", int(MOST_MESSAGES * share), 1, 1.0)
        pressure.saw("ingest", int(MOST_MESSAGES * share), 1, 1.0)
        assert (refused(pressure, "ask"), refused(pressure, "change"), refused(pressure, "queue")) == (
            ask,
            change,
            change,
        )


def test_retry_after_of_a_queue_that_gets_shorter() -> None:
    pressure = Pressure()
    pressure.saw("ingest", int(MOST_MESSAGES * 0.9), 1, 1.0)
    pressure.saw("ingest", int(MOST_MESSAGES * 0.9) - 1_000, 1, 1.0)
    assert refused(pressure, "change") == 4
    pressure.missed("ingest")
    assert not refused(pressure, "change")
