"""Events that end what the gateway remembers about a caller."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import structlog

from services.gateway.session import Callers
from shared.bus import codec
from shared.bus.link import Delivery
from shared.contracts.base import may_send
from shared.contracts.ingest import DatasetKeyRevoked

log = structlog.get_logger()
TOPICS = (DatasetKeyRevoked.topic,)
_revoked = msgspec.msgpack.Decoder(DatasetKeyRevoked)


def listener(callers: Callers) -> Callable[[Delivery], None]:
    """Takes deliveries of TOPICS; one that cannot be read forgets every caller, to be safe."""

    def hear(delivery: Delivery) -> None:
        delivery.ack()
        try:
            for frame in codec.decode_frames(delivery.body, delivery.routing_key, delivery.properties):
                if not may_send(delivery.properties.user_id, DatasetKeyRevoked):
                    continue
                callers.drop_dataset_key(_revoked.decode(frame.body).digests)
        except (codec.Malformed, msgspec.MsgspecError) as error:
            log.error("revocation_unreadable", error=str(error))
            callers.drop_all()

    return hear
