"""How a message ends: the whole delivery policy as one pure function, the table of design page in code."""

from __future__ import annotations

from enum import Enum

import msgspec

STILL_RUNNING = "still_running"  # the code of a 409: another copy of the frame is at work
MOST_ATTEMPTS = 5
SHORT_WAIT, LONG_WAIT = 10.0, 600.0


class Ending(Enum):
    """What happened to one frame."""

    __hash__ = object.__hash__  # there is one of each; Enum's own is a call for every look-up

    DONE = "done"
    REFUSED = "refused"
    RETRY = "retry"
    AWAY = "away"
    FAILED = "failed"
    MALFORMED = "malformed"
    UNKNOWN_TOPIC = "unknown_topic"
    NOT_ALLOWED = "not_allowed"
    TOO_OFTEN = "too_often"
    TOO_OLD = "too_old"
    BUSY = "busy"
    MISMATCH = "mismatch"
    EXPIRED = "expired"
    STREAMED = "streamed"
    DRAINING = "draining"


class Broker(Enum):
    """What is done with the frame; DEAD and WAIT publish it there, confirmed, before the ack."""

    ACK = "ack"
    WAIT = "wait"
    HOLD = "hold"
    DEAD = "dead"
    REQUEUE = "requeue"


class Verdict(msgspec.Struct, frozen=True):
    """What the broker is told, and the HTTP status the caller hears (0: nothing)."""

    broker: Broker
    status: int = 0
    wait_seconds: float = 0.0


OK = Verdict(Broker.ACK, 200)
_FIXED = {
    Ending.DONE: OK,
    Ending.REFUSED: Verdict(Broker.ACK, 400),
    Ending.AWAY: Verdict(Broker.HOLD),
    Ending.FAILED: Verdict(Broker.DEAD, 500),
    Ending.MALFORMED: Verdict(Broker.DEAD, 400),
    Ending.UNKNOWN_TOPIC: Verdict(Broker.DEAD, 502),
    Ending.NOT_ALLOWED: Verdict(Broker.DEAD),
    Ending.TOO_OFTEN: Verdict(Broker.DEAD, 500),
    Ending.TOO_OLD: Verdict(Broker.DEAD),
    Ending.MISMATCH: Verdict(Broker.ACK, 422),
    Ending.EXPIRED: Verdict(Broker.ACK),
    Ending.STREAMED: Verdict(Broker.ACK),
    Ending.DRAINING: Verdict(Broker.REQUEUE),
}


def judge(
    ending: Ending,
    *,
    attempt: int = 1,
    seconds_left: float | None = None,
    retry_after: float = SHORT_WAIT,
    waits: tuple[float, float] = (SHORT_WAIT, LONG_WAIT),
) -> Verdict:
    """Decide how a frame ends.

    `seconds_left` until its deadline, None when it has none (nobody waits, it never expires); `attempt`
    counts from 1; `retry_after` is what a Retry asked for; `waits` the delays the broker has queues for.
    A frame that is busy elsewhere is told so when somebody waits, else tried again shortly.
    """
    if ending is Ending.BUSY:
        return Verdict(Broker.ACK, 409) if seconds_left is not None else Verdict(Broker.WAIT, 0, waits[0])
    if ending is not Ending.RETRY:
        return _FIXED[ending]
    if attempt >= MOST_ATTEMPTS:
        return _FIXED[Ending.TOO_OFTEN]
    wait = waits[0] if retry_after <= waits[0] and attempt < MOST_ATTEMPTS - 1 else waits[1]
    if seconds_left is not None and wait >= seconds_left:
        return Verdict(Broker.ACK, 503)
    return Verdict(Broker.WAIT, 0, wait)
