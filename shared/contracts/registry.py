"""Every message there is, found in the contract modules."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

import shared.contracts
from shared.contracts.base import Command, Message, Query, may_send, owner_of


@cache
def messages() -> dict[str, type[Message]]:
    """Every contract by topic, in order of topic."""
    found: dict[str, type[Message]] = {}
    for module in pkgutil.iter_modules(shared.contracts.__path__):
        for value in vars(importlib.import_module(f"shared.contracts.{module.name}")).values():
            if isinstance(value, type) and issubclass(value, Message) and value.topic:
                found[value.topic] = value
    return dict(sorted(found.items()))


def owners() -> tuple[str, ...]:
    """Every service that owns a topic."""
    return tuple(sorted({owner_of(topic) for topic in messages()}))


def commands_of(account: str) -> tuple[str, ...]:
    """The commands of other services that an account may send, for its broker rights."""
    return tuple(
        topic
        for topic, kind in messages().items()
        if issubclass(kind, Command) and owner_of(topic) != account and may_send(account, kind)
    )


def kind_of(message: type[Message]) -> str:
    """`command`, `query` or `event`."""
    if issubclass(message, Command):
        return "command"
    return "query" if issubclass(message, Query) else "event"
