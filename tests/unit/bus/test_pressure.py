"""When one more call is refused, and what the caller is told."""

from __future__ import annotations

from shared.bus.pressure import (
    ASK_CALLS,
    CHANGE_CALLS,
    SILENT_CALLS,
    SILENT_SECONDS,
    SLOW_TURNS,
    Pressure,
    Want,
)
from shared.bus.requests import Overloaded
from shared.bus.topology import MOST_MESSAGES

TURN = 0.05


def begin(pressure: Pressure, want: Want, calls: int, service: str = "ingest") -> None:
    for _ in range(calls):
        pressure.flow(service, want).began()


def answer(pressure: Pressure, want: Want, seconds: float, calls: int, service: str = "ingest") -> None:
    for _ in range(calls):
        pressure.flow(service, want).ended(seconds)


def turns(pressure: Pressure, want: Want, seconds: float, count: int = SLOW_TURNS) -> None:
    """Turns in which one call is answered after so many seconds, and another begins."""
    for _ in range(count):
        answer(pressure, want, seconds, 1)
        begin(pressure, want, 1)
        pressure.turn(TURN)


def refused(pressure: Pressure, want: Want, service: str = "ingest") -> int:
    """Seconds until a repetition makes sense; 0 when it is not refused."""
    try:
        pressure.admit(service, want)
    except Overloaded as error:
        return error.retry_after
    return 0


def test_many_calls_that_are_answered_quickly_are_no_pressure() -> None:
    pressure = Pressure()
    begin(pressure, "ask", 5_000)
    turns(pressure, "ask", 0.02, 50)
    assert not refused(pressure, "ask")


def test_asking_is_refused_before_changing() -> None:
    pressure = Pressure()
    begin(pressure, "ask", 200)
    begin(pressure, "change", CHANGE_CALLS + 100)
    turns(pressure, "change", 0.045)
    assert refused(pressure, "ask")
    assert not refused(pressure, "change")
    turns(pressure, "change", 0.2)
    assert refused(pressure, "change")


def test_one_slow_call_among_quick_ones_refuses_nobody() -> None:
    pressure = Pressure()
    begin(pressure, "ask", 300)
    for _ in range(SLOW_TURNS):
        answer(pressure, "ask", 9.0, 10)
        answer(pressure, "ask", 0.004, 1)
        pressure.turn(TURN)
    assert not refused(pressure, "ask")


def test_a_short_outage_is_waited_out_and_what_it_delayed_refuses_nobody() -> None:
    pressure = Pressure()
    begin(pressure, "change", 500)
    for _ in range(int(SILENT_SECONDS / TURN)):
        pressure.turn(TURN)
    assert not refused(pressure, "change")
    turns(pressure, "change", 1.0, SLOW_TURNS - 1)
    turns(pressure, "change", 0.01, 1)
    assert not refused(pressure, "change")


def test_some_calls_are_never_refused_however_slow() -> None:
    pressure = Pressure()
    begin(pressure, "ask", ASK_CALLS - 1)
    begin(pressure, "queue", CHANGE_CALLS - 1)
    turns(pressure, "ask", 2.0, 100)
    turns(pressure, "queue", 2.0, 100)
    assert not refused(pressure, "ask")
    assert not refused(pressure, "queue")


def test_in_a_long_silence_only_so_many_may_wait() -> None:
    pressure = Pressure()
    begin(pressure, "queue", SILENT_CALLS - 1)
    for _ in range(int(3 * SILENT_SECONDS / TURN)):
        pressure.turn(TURN)
    assert not refused(pressure, "queue")
    begin(pressure, "queue", 1)
    assert refused(pressure, "queue")
    assert not refused(pressure, "change")


def test_other_services_are_asked_as_ever() -> None:
    pressure = Pressure()
    begin(pressure, "ask", 1_000)
    turns(pressure, "ask", 1.0)
    begin(pressure, "ask", 1_000, "auth")
    assert refused(pressure, "ask")
    assert not refused(pressure, "ask", "auth")


def test_more_are_let_in_again_when_answers_are_quick() -> None:
    pressure = Pressure()
    begin(pressure, "ask", 400)
    turns(pressure, "ask", 1.0, 20)
    assert refused(pressure, "ask")
    turns(pressure, "ask", 0.001, 40)
    assert not refused(pressure, "ask")


def test_everything_is_forgotten_when_nothing_is_on_its_way() -> None:
    pressure = Pressure()
    begin(pressure, "ask", 200)
    turns(pressure, "ask", 3.0)
    answer(pressure, "ask", 3.0, 200)
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
