"""Events in, forgotten secrets and (later) sockets out."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from services.gateway.session import Callers
from shared.bus.codec import Malformed, decode_frames
from shared.bus.link import Delivery
from shared.contracts.base import may_send
from shared.contracts.ingest import DatasetKeyRevoked

HEARD = (DatasetKeyRevoked,)
TOPICS = tuple(event.topic for event in HEARD)


def hearing(callers: Callers) -> Callable[[Delivery], None]:
    """Take the live events: a revoked key is forgotten at once, whatever cannot be read forgets all."""

    def on_delivery(delivery: Delivery) -> None:
        delivery.ack()
        try:
            for frame in decode_frames(delivery.body, delivery.routing_key, delivery.properties):
                if frame.topic == DatasetKeyRevoked.topic and may_send(
                    delivery.properties.user_id, DatasetKeyRevoked
                ):
                    revoked = msgspec.msgpack.decode(frame.body, type=DatasetKeyRevoked)
                    callers.drop_dataset_key(revoked.digests)
        except (Malformed, msgspec.MsgspecError):
            callers.drop_all()

    return on_delivery
