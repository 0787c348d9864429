"""What the figures of the broker mean: whose a queue is, how it does, and what somebody should do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Literal, NamedTuple, get_args

import msgspec
from msgspec import Struct

from shared.bus.pressure import Depth
from shared.bus.topology import SERVICES, SHED_AT, SHED_QUERIES_AT, service_queues, shared_queues

Kind = Literal["commands", "queries", "events", "logs", "dead", "wait", "replies", "live", "other"]
Level = Literal["good", "warning", "bad"]
KINDS = get_args(Kind)
SUFFIXES: dict[str, Kind] = {"": "commands", "queries": "queries", "events": "events", "logs": "logs"}
TAKEN_FROM = ("commands", "queries", "events", "logs")
GATEWAY, SHARED, DEVICES = "gateway", "every service", "devices"
WAITS_LONG_SECONDS = 60.0
LATE_SECONDS = 5.0
LEADER_SECONDS = 12.0
"""After a start RabbitMQ 4 has the figures of quorum queues this much later than the queues themselves."""
NO_LEADER = "no leader"
KNOWN_STATES = ("", "running", "flow", "idle", "unknown", NO_LEADER)
MOST_SAMPLES = 120
MEND = "./posthouse doctor --mend"


class QueueState(Struct, frozen=True, kw_only=True):
    """One queue; null is not known.

    `oldest_seconds`: the oldest message has waited so long, or at least so long unless `oldest_is_exact`.
    `full` is the share of what it may hold. Rates are per second. `consumers_expected` is null where nobody
    is to take anything. `advice` says what to do when `level` is not good.
    """

    name: str
    house: str
    kind: Kind
    state: str
    messages: int | None = None
    unacknowledged: int | None = None
    bytes: int | None = None
    full: float | None = None
    oldest_seconds: float | None = None
    oldest_is_exact: bool = False
    published_per_second: float | None = None
    delivered_per_second: float | None = None
    acknowledged_per_second: float | None = None
    redelivered: int | None = None
    consumers: int | None = None
    consumers_expected: int | None = None
    level: Level = "good"
    advice: str = ""


class NodeState(Struct, frozen=True, kw_only=True):
    """One node of the broker; an alarm stops everything that is sent."""

    name: str
    running: bool
    uptime_seconds: float | None = None
    memory_used: int | None = None
    memory_limit: int | None = None
    memory_alarm: bool = False
    disk_free: int | None = None
    disk_limit: int | None = None
    disk_alarm: bool = False
    level: Level = "good"
    advice: str = ""


class Overview(Struct, frozen=True, kw_only=True):
    """Every queue and node as of `at`; `away` says why the management API does not answer, `more` how many
    queues are left out.
    """

    items: tuple[QueueState, ...]
    nodes: tuple[NodeState, ...]
    at: datetime
    away: str = ""
    more: int = 0
    next: None = None


class Sample(NamedTuple):
    """A queue at a moment: how many it held, and how many had been published to it and taken from it."""

    at: float
    messages: int
    published: int
    taken: int


class Memory:
    """What only who looks again and again can know: how long the oldest message of each queue has waited at
    least, and how long something has been wrong.

    A message is there since a moment if fewer were published since than are there now, and fewer taken since
    than were there then: the first is not fooled by messages that expire or are dropped, the second not by
    those the broker itself moves here, which it does not count as published.
    """

    def __init__(self) -> None:
        self._samples: dict[str, list[Sample]] = {}
        self._since: dict[tuple[str, str], float] = {}

    def saw(self, name: str, now: Sample) -> float | None:
        """Take note; answers the seconds, None for an empty queue."""
        kept = [one for one in self._samples.get(name, ()) if _has_stayed(one, now)] if now.messages else []
        if len(kept) >= MOST_SAMPLES:
            kept = [kept[0], *kept[1::2]]
        self._samples[name] = [*kept, now]
        if not now.messages:
            return None
        # Figures are up to a few seconds late, and not all of them equally.
        return max(0.0, now.at - kept[0].at - LATE_SECONDS) if kept else 0.0

    def lasts(self, name: str, trouble: str, at: float) -> float:
        """For how many seconds this was so each time somebody looked; no trouble ends all of the name."""
        if not trouble:
            self._since = {key: since for key, since in self._since.items() if key[0] != name}
            return 0.0
        return at - self._since.setdefault((name, trouble), at)

    def forget_all_but(self, names: Iterable[str]) -> None:
        """Queues come and go."""
        there = set(names)
        self._samples = {name: known for name, known in self._samples.items() if name in there}
        self._since = {key: since for key, since in self._since.items() if key[0] in there}


def _has_stayed(then: Sample, now: Sample) -> bool:
    published, taken = now.published - then.published, now.taken - then.taken
    return 0 <= published < now.messages and 0 <= taken < then.messages


def place_of(name: str, known: Iterable[str] = SERVICES) -> tuple[str, Kind]:
    """Whose a queue is, and what it is for."""
    first, _, rest = name.partition(".")
    if first == "dead":
        return (DEVICES if rest == "mqtt" else rest), "dead"
    if first == "wait":
        return SHARED, "wait"
    if first == GATEWAY:
        return GATEWAY, "replies" if rest.startswith("repl") else "live"
    if first in known and rest in SUFFIXES:
        return first, SUFFIXES[rest]
    return first, "other"


def overview(
    queues: Mapping[str, Any],
    nodes: Iterable[Mapping[str, Any]],
    depths: Mapping[str, Depth],
    memory: Memory,
    at: datetime,
) -> Overview:
    """All of it from what the management API says, and what the gateway itself was told since."""
    found = {str(one["name"]): one for one in queues["items"]}
    judged_nodes = tuple(_node(one) for one in nodes)
    owners = {*SERVICES, *(name for name in found if f"{name}.queries" in found)}
    bare = [_read(one, owners, memory, at) for one in found.values()]
    memory.forget_all_but(found)
    more = max(0, int(queues.get("filtered_count", 0)) - len(found))
    missing = [_bare(name, "missing") for name in _declared() if name not in found and not more]
    items = _judged([_now(one, depths) for one in (*bare, *missing)], memory, at)
    return Overview(items=items, nodes=judged_nodes, at=at, more=more)


def without_management(depths: Mapping[str, Depth], memory: Memory, away: str, at: datetime) -> Overview:
    """What the gateway knows of the queues it asks itself; of others and of nodes nothing is known now."""
    items = [_bare(name, "" if depth.present else "missing") for name, depth in depths.items()]
    judged = _judged([_now(one, depths) for one in items], memory, at)
    return Overview(items=judged, nodes=(), at=at, away=away)


def _bare(name: str, state: str) -> QueueState:
    house, kind = place_of(name)
    return QueueState(name=name, house=house, kind=kind, state=state)


def _declared() -> list[str]:
    services = [queue for name in SERVICES for queue in service_queues(name, logs=name == "worker")]
    return [queue.name for queue in (*services, *shared_queues())]


def _read(one: Mapping[str, Any], owners: Iterable[str], memory: Memory, at: datetime) -> QueueState:
    name, stats = str(one["name"]), one.get("message_stats") or {}
    house, kind = place_of(name, owners)
    messages = one.get("messages")
    age, is_exact = None, False
    if messages is not None:
        taken = sum(stats.get(what, 0) for what in ("ack", "deliver_no_ack", "get_no_ack"))
        age = memory.saw(name, Sample(at.timestamp(), messages, stats.get("publish", 0), taken))
        if messages and isinstance(head := one.get("head_message_timestamp"), int) and head > 0:
            age, is_exact = max(0.0, at.timestamp() - head), True
    return QueueState(
        name=name,
        house=house,
        kind=kind,
        state=_state(one),
        messages=messages,
        unacknowledged=one.get("messages_unacknowledged"),
        bytes=one.get("message_bytes"),
        full=_full(one),
        oldest_seconds=age,
        oldest_is_exact=is_exact,
        published_per_second=_rate(stats, "publish"),
        delivered_per_second=_rate(stats, "deliver_get"),
        acknowledged_per_second=_rate(stats, "ack"),
        redelivered=stats.get("redeliver", 0),
        consumers=one.get("consumers"),
        advice=_moving(one),
    )


def _state(one: Mapping[str, Any]) -> str:
    """RabbitMQ 4 calls every quorum queue running; only its leader counts what is in it."""
    if one.get("type") == "quorum" and (not one.get("state") or one.get("messages") is None):
        return NO_LEADER
    return one.get("state") or "unknown"


def _rate(stats: Mapping[str, Any], what: str) -> float:
    return float((stats.get(f"{what}_details") or {}).get("rate", 0.0))


def _full(one: Mapping[str, Any]) -> float | None:
    """The larger share of its limits, those of a policy included."""
    given = {f"x-{name}": most for name, most in (one.get("effective_policy_definition") or {}).items()}
    own = one.get("arguments") or {}
    shares = []
    for name, held in (("x-max-length", "messages"), ("x-max-length-bytes", "message_bytes")):
        limits = [most for most in (given.get(name), own.get(name)) if most]
        if limits and one.get(held) is not None:
            shares.append(one[held] / min(limits))
    return max(shares, default=None)


def _moving(one: Mapping[str, Any]) -> str:
    """Messages that the broker holds until another queue has confirmed them."""
    if not (waiting := one.get("messages_dlx") or 0):
        return ""
    return f"{waiting:,} of its messages are on their way to another queue that does not take them: {MEND}"


def _now(one: QueueState, depths: Mapping[str, Depth]) -> QueueState:
    """The management API is some seconds late; the gateway asks a few queues each second."""
    depth = depths.get(one.name)
    if depth is None or one.state == "missing" or not depth.present:
        return one
    ready = depth.messages + (one.unacknowledged or 0)
    return msgspec.structs.replace(one, messages=ready, consumers=depth.consumers)


def _judged(states: list[QueueState], memory: Memory, at: datetime) -> tuple[QueueState, ...]:
    processes = {one.house: one.consumers or 0 for one in states if one.kind == "commands"}
    made = [_with_advice(one, processes.get(one.house, 0), memory, at) for one in states]
    return tuple(sorted(made, key=_order))


def _order(one: QueueState) -> tuple[int, str, int, str]:
    rank = 0 if one.house in SERVICES else 3 if one.kind == "other" else 2 if one.house == SHARED else 1
    return rank, one.house, KINDS.index(one.kind), one.name


def _with_advice(one: QueueState, processes: int, memory: Memory, at: datetime) -> QueueState:
    expected = None
    if one.kind in TAKEN_FROM:
        expected = 1 if one.kind == "commands" else max(1, processes)
    elif one.kind in ("replies", "live"):
        expected = 1
    known = msgspec.structs.replace(one, consumers_expected=expected)
    found = _of_state(known) or _of_messages(known) or _of_room(known) or _of_time(known)
    passing = _without_leader(known) or _of_consumers(known)
    lasts = memory.lasts(one.name, passing[1] if passing else "", at.timestamp())
    # What a restart looks like for a moment, and figures that are late, is nothing to be told.
    late = LEADER_SECONDS if known.state == NO_LEADER else LATE_SECONDS
    level, advice = found or (passing if passing and lasts > late else None) or ("good", "")
    return msgspec.structs.replace(known, level=level, advice=advice)


def _of_state(one: QueueState) -> tuple[Level, str] | None:
    if one.state == "missing":
        return "bad", f"It is not there, and what should go to it is turned away: {MEND}"
    if one.state not in KNOWN_STATES:
        return "bad", f"The broker says it is {one.state}: ./posthouse logs rabbitmq"
    return ("bad", one.advice) if one.advice else None


def _without_leader(one: QueueState) -> tuple[Level, str] | None:
    return ("bad", f"It has no leader and takes nothing: {MEND}") if one.state == NO_LEADER else None


def _of_messages(one: QueueState) -> tuple[Level, str] | None:
    if one.kind != "dead" or not one.messages:
        return None
    if one.house == DEVICES:
        return "bad", "Devices sent to topics nobody listens to; each message names its topic."
    words = f"They failed for good; each says why: ./posthouse logs {one.house} (frame_dead_lettered)"
    return "bad", words


def _of_consumers(one: QueueState) -> tuple[Level, str] | None:
    if one.kind not in TAKEN_FROM or one.consumers is None:
        return None
    if one.consumers >= (one.consumers_expected or 0):
        return None
    if one.house not in SERVICES:
        return "bad" if not one.consumers else "warning", "Nobody takes from it: start what it belongs to."
    if not one.consumers:
        words = f"No process takes from it: ./posthouse status, then ./posthouse logs {one.house}"
        return "bad", words
    return "warning", f"Not every process of {one.house} takes from it: ./posthouse logs {one.house}"


def _of_room(one: QueueState) -> tuple[Level, str] | None:
    if one.full is None or one.full < SHED_QUERIES_AT or one.kind == "dead":
        return None
    more = f"more processes of {one.house} take it down: ./posthouse up --scale {one.house}=2"
    if one.kind == "wait":
        more = "what they wait for is away: ./posthouse status"
    if one.full >= SHED_AT:
        return "bad", f"{one.full:.0%} full, and requests are turned away; {more}"
    return "warning", f"{one.full:.0%} full, and reads are turned away; {more}"


def _of_time(one: QueueState) -> tuple[Level, str] | None:
    if one.kind not in TAKEN_FROM or (one.oldest_seconds or 0) < WAITS_LONG_SECONDS:
        return None
    return (
        "warning",
        f"The oldest waits for long: {one.house} is slow or stands still: ./posthouse logs {one.house}",
    )


def _node(one: Mapping[str, Any]) -> NodeState:
    uptime = one.get("uptime")
    state = NodeState(
        name=str(one["name"]),
        running=bool(one.get("running")),
        uptime_seconds=None if uptime is None else uptime / 1000,
        memory_used=one.get("mem_used"),
        memory_limit=one.get("mem_limit"),
        memory_alarm=bool(one.get("mem_alarm")),
        disk_free=one.get("disk_free"),
        disk_limit=one.get("disk_free_limit"),
        disk_alarm=bool(one.get("disk_free_alarm")),
    )
    advice = ""
    if not state.running:
        advice = "It does not run: ./posthouse logs rabbitmq"
    elif state.disk_alarm:
        advice = "It has too little disk left and takes nothing: free some."
    elif state.memory_alarm:
        advice = "It has too little memory left and takes nothing: give it more, or let queues become empty."
    elif one.get("partitions"):
        advice = "It has lost sight of other nodes: restart the smaller part."
    return msgspec.structs.replace(state, level="bad" if advice else "good", advice=advice)
