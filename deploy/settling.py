"""What a backup kept of accounts and queues that are not ours, given to the broker at the next start."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from deploy.archive import BROKER
from deploy.broker import Management, accounts, queues


async def settle_broker(environment: Mapping[str, str]) -> None:
    """Import what a restore has left in the directory of the data, and remove that."""
    data = environment.get("POSTHOUSE_DATA")
    if not data or not (place := Path(data) / BROKER).exists():
        return
    kept = json.loads(place.read_bytes())
    async with Management(environment) as management:
        await management.wait()
        await management.call("POST", "/definitions", foreign(kept, unquote(management.virtual_host)))
    place.unlink()


def foreign(kept: Mapping[str, Any], vhost: str) -> dict[str, Any]:
    """What `deploy.prepare` does not make itself, for this virtual host."""
    users = {one["name"] for one in kept["users"]} - set(accounts())
    ours = {queue.name for queue in queues()}
    names = {one["name"] for one in kept["queues"] if not one["name"].startswith("gateway.")} - ours
    belongs: dict[str, Callable[[Any], bool]] = {
        "users": lambda one: one["name"] in users,
        "permissions": lambda one: one["user"] in users,
        "topic_permissions": lambda one: one["user"] in users,
        "queues": lambda one: one["name"] in names,
        "bindings": lambda one: one["destination_type"] == "queue" and one["destination"] in names,
    }
    found = {kind: [one for one in kept[kind] if test(one)] for kind, test in belongs.items()}
    return {
        kind: [{**one, "vhost": vhost} if "vhost" in one else one for one in each]
        for kind, each in found.items()
    }
