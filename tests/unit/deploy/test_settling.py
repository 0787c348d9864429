"""Of the broker, a restore brings back what is not ours; ours is made anew by every version."""

from __future__ import annotations

from typing import Any

from deploy.settling import foreign


def named(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "vhost": "/old", **more}


KEPT: dict[str, list[dict[str, Any]]] = {
    "users": [{"name": "weather", "password_hash": "x"}, {"name": "ingest", "password_hash": "y"}],
    "permissions": [{"user": user, "vhost": "/old", "read": ".*"} for user in ("weather", "ingest")],
    "topic_permissions": [{"user": user, "vhost": "/old"} for user in ("weather", "gateway")],
    "queues": [
        named(name, arguments={"x-max-length": 1})
        for name in ("weather", "ingest", "ingest.events", "dead.mqtt", "gateway.replies.1")
    ],
    "exchanges": [named("posthouse.commands")],
    "bindings": [
        {"source": "posthouse.commands", "vhost": "/old", "destination": name, "destination_type": "queue"}
        for name in ("weather", "ingest")
    ],
    "policies": [named("posthouse-mqtt")],
}


def test_only_what_is_not_ours_is_given_to_the_broker() -> None:
    found = foreign(KEPT, "/new")
    assert {kind: len(each) for kind, each in found.items()} == {
        "users": 1,
        "permissions": 1,
        "topic_permissions": 1,
        "queues": 1,
        "bindings": 1,
    }
    assert found["users"] == [{"name": "weather", "password_hash": "x"}]
    assert found["queues"] == [{"name": "weather", "vhost": "/new", "arguments": {"x-max-length": 1}}]
    assert found["bindings"][0]["destination"] == "weather"


def test_it_is_of_the_virtual_host_that_is_used_now() -> None:
    found = foreign(KEPT, "/new")
    assert {one["vhost"] for each in found.values() for one in each if "vhost" in one} == {"/new"}
