"""The kinds of message that cross the wire, and who may send them."""

from __future__ import annotations

from typing import Any, ClassVar, Generic, Literal, TypeVar, dataclass_transform

import msgspec

Reply = TypeVar("Reply")


@dataclass_transform(frozen_default=True, kw_only_default=True)
class MessageMeta(msgspec.StructMeta):
    """Lets a contract name its topic in the class line: `class Post(Command[Posted], topic="chat.post")`."""

    def __new__(
        mcls,
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        topic: str = "",
        senders: frozenset[str] | None = None,
        **config: Any,
    ) -> Any:
        config = {"frozen": True, "kw_only": True, "omit_defaults": True, **config}
        cls: Any = super().__new__(mcls, name, bases, namespace, **config)
        if topic:
            cls.topic = topic
        if senders is not None:
            cls.senders = senders
        return cls


ANY_ACCOUNT = "*"


class Message(msgspec.Struct, metaclass=MessageMeta):
    """A frozen structure encoded as a msgpack map; evolves only by added fields that have defaults.

    `topic` is `<owner>.<snake_name>` and the AMQP routing key; `senders` are the broker accounts that
    may publish it beside the owner itself (see `may_send`), or ANY_ACCOUNT for all the broker knows.
    """

    topic: ClassVar[str] = ""
    senders: ClassVar[frozenset[str]] = frozenset()


class Command(Message, Generic[Reply], senders=frozenset({"gateway"})):
    """Asks its owner to change something; answered with a `Reply` after the commit."""


class Query(Message, Generic[Reply], senders=frozenset({"gateway"})):
    """Asks its owner for something; changes nothing and may be lost without harm."""


class Event(Message):
    """Says that something has happened; published by its owner only, heard by anyone."""


class Nothing(msgspec.Struct, frozen=True):
    """The reply of a message that answers with its success alone."""


PrincipalKind = Literal["anonymous", "user", "key", "device", "service"]


class Principal(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who caused a message: checked at the door, carried in every frame, decided upon by the service.

    `id` is the user, key, device or service; `via` the session or key that proved it; `scopes` what a
    key is limited to (`dataset:<id>:write`), empty for a person; `roles` such as `administrator`.
    """

    kind: PrincipalKind = "anonymous"
    id: str = ""
    via: str = ""
    project: str = "default"
    scopes: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()


ANONYMOUS = Principal()


class FieldError(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One mistake of a request: where it is (`in`: body, query, path, header), its path there, what it is."""

    where: str = msgspec.field(default="body", name="in")
    path: str = ""
    code: str = "invalid"
    message: str = ""


def owner_of(topic: str) -> str:
    """The service that owns a topic: the part before its first dot."""
    return topic.partition(".")[0]


def reply_type(message: type[Message]) -> Any:
    """The `Reply` a command or query class was declared with; `Nothing` for an event."""
    for base in getattr(message, "__orig_bases__", ()):
        arguments = getattr(base, "__args__", ())
        if arguments and not isinstance(arguments[0], TypeVar):
            return arguments[0]
    return Nothing


def may_send(account: str, message: type[Message]) -> bool:
    """Whether a broker account may publish this message: the owner always, others as declared."""
    return account == owner_of(message.topic) or account in message.senders
