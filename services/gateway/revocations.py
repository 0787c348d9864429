"""Events that end what the gateway remembers about a caller."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import structlog

from services.gateway.session import Callers
from shared.bus import codec
from shared.bus.codec import Frame
from shared.bus.link import Delivery
from shared.contracts.auth import SessionsEnded
from shared.contracts.base import may_send
from shared.contracts.ingest import DatasetKeyRevoked

log = structlog.get_logger()
TOPICS = (DatasetKeyRevoked.topic, SessionsEnded.topic)
_revoked = msgspec.msgpack.Decoder(DatasetKeyRevoked)
_ended = msgspec.msgpack.Decoder(SessionsEnded)


def listener(callers: Callers) -> Callable[[Delivery], None]:
    """Takes deliveries of TOPICS; one that cannot be read forgets every caller, to be safe."""

    def hear(delivery: Delivery) -> None:
        delivery.ack()
        try:
            for frame in codec.decode_frames(delivery.body, delivery.routing_key, delivery.properties):
                _hear(frame, delivery.properties.user_id, callers)
        except (codec.Malformed, msgspec.MsgspecError) as error:
            log.error("revocation_unreadable", error=str(error))
            callers.drop_all()

    return hear


def _hear(frame: Frame, sender: str, callers: Callers) -> None:
    if frame.topic == DatasetKeyRevoked.topic and may_send(sender, DatasetKeyRevoked):
        callers.drop_dataset_key(_revoked.decode(frame.body).digests)
    elif frame.topic == SessionsEnded.topic and may_send(sender, SessionsEnded):
        callers.drop_sessions(map(str, _ended.decode(frame.body).session_ids))
