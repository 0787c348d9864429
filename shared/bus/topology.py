"""The one place that says which exchanges, queues, bindings and rights there are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

COMMANDS = "posthouse.commands"
QUERIES = "posthouse.queries"
EVENTS = "posthouse.events"
LOGS = "posthouse.logs"
WAIT = "posthouse.wait"
DEAD = "posthouse.dead"
REPLIES = "posthouse.replies"
MQTT = "amq.topic"
MQTT_LOST = "posthouse.mqtt_lost"

TOPIC_EXCHANGES = (COMMANDS, QUERIES, EVENTS, LOGS, WAIT, DEAD)
EXCHANGE_OF_KIND = {"command": COMMANDS, "query": QUERIES, "event": EVENTS, "log": LOGS}

SHORT, LONG = "10s", "10m"
MOST_MESSAGES = 50_000
MOST_BYTES = 1 << 30
SHED_AT = 0.8
SHED_QUERIES_AT = 0.6
STREAM_PARTS = 8
SERVICES = ("auth", "ingest", "chat", "worker")
MONITOR = "monitor"


@dataclass(frozen=True)
class Queue:
    """A queue and the (exchange, pattern) pairs bound to it."""

    name: str
    arguments: dict[str, Any]
    bindings: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Rights:
    """What a broker account may do: regular expressions as RabbitMQ has them, and per topic exchange.

    Topics end with `\\z`: a `$` lets a line break follow. Names need no such care, the broker takes it off.
    `tags` open the management API: none, or `monitoring`, which sees all and changes nothing.
    """

    configure: str
    write: str
    read: str
    topics: dict[str, str] = field(default_factory=dict)
    tags: str = ""


@dataclass(frozen=True)
class Waits:
    """How long the two wait queues hold a message, in seconds."""

    short: float = 10.0
    long: float = 600.0


WAITS = Waits()


def service_queues(service: str, hears: Iterable[str] = (), logs: bool = False) -> list[Queue]:
    """The queues of one service; `hears` are topics of other services' events, `logs` the log lines."""
    events = tuple((EVENTS, topic) for topic in sorted(hears))
    queues = [
        Queue(
            service,
            {
                "x-queue-type": "quorum",
                "x-delivery-limit": 1000,
                "x-max-length": MOST_MESSAGES,
                "x-max-length-bytes": MOST_BYTES,
                "x-overflow": "reject-publish",
                "x-dead-letter-exchange": DEAD,
                "x-dead-letter-routing-key": service,
                "x-dead-letter-strategy": "at-least-once",
            },
            ((COMMANDS, f"{service}.#"),),
        ),
        Queue(
            f"{service}.queries",
            {"x-max-length": MOST_MESSAGES, "x-max-length-bytes": MOST_BYTES >> 2},
            ((QUERIES, f"{service}.#"),),
        ),
        Queue(
            f"{service}.events",
            {
                "x-queue-type": "quorum",
                "x-delivery-limit": 1000,
                "x-max-length": MOST_MESSAGES,
                "x-max-length-bytes": MOST_BYTES,
                "x-overflow": "drop-head",
                "x-dead-letter-exchange": DEAD,
                "x-dead-letter-routing-key": service,
            },
            events,
        ),
        Queue(f"dead.{service}", {"x-queue-type": "quorum", "x-delivery-limit": 1000}, ((DEAD, service),)),
    ]
    if logs:
        arguments = {"x-max-length": MOST_MESSAGES, "x-max-length-bytes": MOST_BYTES >> 2}
        queues.append(Queue(f"{service}.logs", arguments, ((LOGS, "#"),)))
    return queues


def shared_queues(waits: Waits = WAITS) -> list[Queue]:
    """The wait queues, which bring a message back to the service its routing key names, and MQTT's rest."""
    return [
        *(
            Queue(
                f"wait.{name}",
                {
                    "x-queue-type": "quorum",
                    "x-delivery-limit": 1000,
                    "x-max-length": MOST_MESSAGES,
                    "x-max-length-bytes": MOST_BYTES,
                    "x-overflow": "reject-publish",
                    "x-message-ttl": int(seconds * 1000),
                    "x-dead-letter-exchange": COMMANDS,
                    "x-dead-letter-strategy": "at-least-once",
                },
                ((WAIT, f"*.{name}"),),
            )
            for name, seconds in ((SHORT, waits.short), (LONG, waits.long))
        ),
        Queue(
            "dead.mqtt",
            {"x-queue-type": "quorum", "x-delivery-limit": 1000, "x-max-length": MOST_MESSAGES},
            ((MQTT_LOST, "#"),),
        ),
    ]


def gateway_rights() -> Rights:
    """The gateway publishes commands and queries of any service and owns queues named `gateway.*`."""
    return Rights(
        configure=r"^gateway\..*$",
        write=r"^(gateway\..*|posthouse\.(commands|queries|logs))$",
        read=r"^(gateway\..*|posthouse\.(replies|events|logs))$",
        topics={
            COMMANDS: r"^[a-z][a-z0-9_]*\.[a-z0-9_]+\z",
            QUERIES: r"^[a-z][a-z0-9_]*\.[a-z0-9_]+\z",
            LOGS: r"^gateway\.",
        },
    )


def monitor_rights() -> Rights:
    """The gateway's second account: it looks at queues through the management API and touches none."""
    return Rights(configure="^$", write="^$", read="^$", tags="monitoring")


def service_rights(service: str, commands: Iterable[str] = (), *, publishes: str | None = None) -> Rights:
    """A service answers, announces its own events, logs, and publishes what it may of others' `commands`.

    `publishes` replaces the pattern of its own events (an account made for a foreign service).
    """
    own = rf"{service}\.[a-z0-9_]+"
    others = "".join(f"|{topic.replace('.', chr(92) + '.')}" for topic in sorted(commands))
    return Rights(
        configure="^$",
        write=r"^posthouse\.(commands|events|replies|logs|wait|dead)$",
        read=rf"^{service}(\.(queries|events|logs))?$",
        topics={
            COMMANDS: rf"^({own}{others})\z",
            EVENTS: publishes if publishes is not None else rf"^{own}\z",
            LOGS: rf"^{service}\.",
            WAIT: rf"^{service}\.({SHORT}|{LONG})\z",
            DEAD: rf"^{service}\z",
        },
    )
