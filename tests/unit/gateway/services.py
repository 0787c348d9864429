"""Services in this process that behave like the real ones as far as the gateway can tell."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from shared.bus.calls import Task
from shared.bus.requests import Begun, Caller, Ended
from shared.contracts.about import About, GetAbout, Probe, Probed
from shared.contracts.auth import (
    Account,
    ListSigningKeys,
    OpenSession,
    SessionOpened,
    SetUp,
    SigningKey,
    SigningKeys,
)
from shared.contracts.base import Command, Message, Nothing, Query, owner_of
from shared.contracts.ingest import (
    ChangeDataset,
    CorrectReading,
    CreateDataset,
    Dataset,
    DatasetCreated,
    DatasetKeys,
    DatasetPage,
    DeleteDataset,
    DeletedReadings,
    DeleteReading,
    DeleteReadings,
    EntryStored,
    ExportReadings,
    GetDataset,
    GetDatasetKeys,
    GetImport,
    GetLatestReading,
    GetLedger,
    GetReading,
    ImportPosition,
    KeyHolder,
    Ledger,
    ListDatasets,
    ListReadings,
    Reading,
    ReadingPage,
    ReadingsWritten,
    ResolveKey,
    RestoreDataset,
    RotateDatasetKey,
    Variable,
    WriteReadings,
)
from shared.contracts.submissions import GetSubmission, RefusalBody, Submission
from shared.contracts.worker import ListLogLines, LogPage, StoredLine
from shared.errors import Conflict, Forbidden, NotFound, Refusal, Unauthorized
from shared.vault import Vault
from tests.unit.gateway.people import opened, people

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
ABOUT = About(service="chat", version="1", commit="c", since=NOON, waiting=0, running=0, held=0, process="p")
LINE = StoredLine(
    at=NOON, level="error", service="ingest", event="lost", request_id="r1", trace_id="", fields={"count": 3}
)
ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class Services:
    """A Requester: datasets and one account in dictionaries, answers by frame id like an inbox.

    `asked` keeps every message with its caller; `failing` maps a topic to the exception its next calls
    raise; `hold` stops commands until it is set; `silent` are topics without an answer until theirs is.
    """

    def __init__(self, vault: Vault) -> None:
        self.vault = vault
        self.asked: list[tuple[Message, Caller]] = []
        self.failing: dict[str, Exception] = {}
        self.hold: asyncio.Event | None = None
        self.silent: dict[str, asyncio.Event] = {}
        self.holding = asyncio.Event()
        self.datasets: dict[UUID, Dataset] = {}
        self.keys: dict[UUID, tuple[str, str]] = {}
        self.readings: dict[UUID, list[Reading]] = {}
        self.deleted: dict[UUID, Dataset] = {}
        self.answered: dict[UUID, tuple[Message, Any]] = {}
        self.parts: Callable[[ExportReadings], AsyncIterator[bytes]] = _two_parts
        self.signing = Ed25519PrivateKey.generate()
        self.account: Account | None = None
        self.password = ""
        self._handlers: dict[type[Message], Callable[[Any, Caller], Any]] = {
            SetUp: self._set_up,
            OpenSession: self._open_session,
            ListSigningKeys: self._signing_keys,
            CreateDataset: self._create,
            ListDatasets: self._list,
            GetDataset: lambda q, c: self._dataset(q.dataset_id),
            ChangeDataset: self._change,
            DeleteDataset: self._delete,
            RestoreDataset: self._restore,
            GetDatasetKeys: lambda q, c: self._sealed(self._dataset(q.dataset_id).id),
            RotateDatasetKey: self._rotate,
            ResolveKey: self._resolve,
            WriteReadings: self._write,
            ListReadings: lambda q, c: ReadingPage(
                items=tuple(self._all(q.dataset_id))[: q.limit], next=None
            ),
            GetLatestReading: lambda q, c: self._reading(q.dataset_id, len(self._all(q.dataset_id))),
            GetReading: lambda q, c: self._reading(q.dataset_id, q.entry),
            CorrectReading: self._correct,
            DeleteReading: self._delete_reading,
            DeleteReadings: self._clear,
            GetLedger: self._ledger,
            GetImport: lambda q, c: ImportPosition(source=q.source, position=0),
            ListLogLines: lambda q, c: LogPage(items=(LINE,), next=None),
            **people(vault, self.token),
        }

    # -- the Requester protocol

    async def ask(self, message: Command[Any] | Query[Any], caller: Caller) -> Any:
        self.asked.append((message, caller))
        if message.topic in self.failing:
            raise self.failing[message.topic]
        if message.topic in self.silent:
            await self.silent[message.topic].wait()
        if isinstance(message, GetSubmission):
            return self._submission(message.id)
        if isinstance(message, GetAbout):
            return ABOUT
        if isinstance(message, Command) and self.hold is not None:
            self.holding.set()
            await self.hold.wait()
        return self._once(message, caller)

    async def submit(self, message: Command[Any], caller: Caller) -> None:
        if message.topic in self.failing:
            raise self.failing[message.topic]
        self.asked.append((message, caller))
        if self.hold is None:
            try:
                self._once(message, caller)
            except Refusal as refusal:
                self.answered[caller.id] = (message, refusal)

    def begin(self, message: Command[Any] | Query[Any], caller: Caller, ended: Ended) -> Begun:
        return Task(self.ask(message, caller), ended)

    def begin_submit(self, message: Command[Any], caller: Caller, ended: Ended) -> Begun:
        return Task(self.submit(message, caller), ended)

    async def stream(self, message: Query[Any], caller: Caller) -> AsyncIterator[Any]:
        self.asked.append((message, caller))
        if message.topic in self.failing:
            raise self.failing[message.topic]
        assert isinstance(message, ExportReadings)
        self._dataset(message.dataset_id)
        async for part in self.parts(message):
            yield part

    # -- what the tests look at

    def last(self, kind: type[Message]) -> tuple[Any, Caller]:
        """The latest message of this kind and who sent it."""
        return next(
            (message, caller) for message, caller in reversed(self.asked) if isinstance(message, kind)
        )

    def token(self, **claims: Any) -> str:
        """An access token as auth makes them; a claim of None is left out, `typ`, `kid` are of the header."""
        header = {"typ": claims.pop("typ", "at+jwt"), "kid": claims.pop("kid", "k1")}
        now = int(time.time())
        payload: dict[str, Any] = {
            "iss": "posthouse",
            "aud": "posthouse",
            "sub": "u1",
            "sid": "s1",
            "jti": secrets.token_hex(8),
            "iat": now,
            "exp": now + 300,
            "project": "default",
            "roles": ["administrator"],
            "name": "ann",
        } | claims
        payload = {name: value for name, value in payload.items() if value is not None}
        return jwt.encode(payload, self.signing, algorithm="EdDSA", headers=header)

    # -- behind it

    def _once(self, message: Message, caller: Caller) -> Any:
        if isinstance(message, Command) and caller.id in self.answered:
            before, reply = self.answered[caller.id]
            if before != message:
                raise Refusal("", code="key_reused", status=422)
            return reply
        if isinstance(message, Probe):
            return Probed(service=owner_of(message.topic), text=message.text, process="p", at=NOON)
        reply = self._handlers[type(message)](message, caller)
        if isinstance(message, Command):
            self.answered[caller.id] = (message, reply)
        return reply

    def _submission(self, frame: UUID) -> Submission:
        if frame not in self.answered:
            return Submission(state="queued")
        _, reply = self.answered[frame]
        if isinstance(reply, Refusal):
            body = RefusalBody(status=reply.status, code=reply.code, detail=reply.detail, errors=reply.errors)
            return Submission(state="refused", refusal=body)
        return Submission(state="stored", reply=msgspec.Raw(msgspec.msgpack.encode(reply)))

    def _set_up(self, cmd: SetUp, caller: Caller) -> Account:
        if self.account is not None:
            raise Conflict("there is an account", code="already_set_up")
        self.password = self.vault.unseal(cmd.password, "auth.password")
        self.account = Account(
            id=uuid4(), name=cmd.name, email=cmd.email, roles=("administrator",), created_at=NOON
        )
        return self.account

    def _open_session(self, cmd: OpenSession, caller: Caller) -> SessionOpened:
        if self.account is None or self.vault.unseal(cmd.password, "auth.password") != self.password:
            raise Unauthorized("the name or the password is wrong", code="wrong_credentials")
        token = self.token(sub=str(self.account.id))
        return opened(self.vault, token)

    def _signing_keys(self, query: ListSigningKeys, caller: Caller) -> SigningKeys:
        key = SigningKey(kid="k1", public_key=self.signing.public_key().public_bytes_raw())
        return SigningKeys(keys=(key,))

    def _dataset(self, name: UUID) -> Dataset:
        if name not in self.datasets:
            raise NotFound("no such dataset")
        return self.datasets[name]

    def _create(self, cmd: CreateDataset, caller: Caller) -> DatasetCreated:
        variables = tuple(
            Variable(tag=spec.tag, field=spec.field or number, name=spec.name, unit=spec.unit, retired=False)
            for number, spec in enumerate(cmd.variables, 1)
        )
        dataset = Dataset(
            id=uuid4(),
            channel_id=len(self.datasets) + 1,
            name=cmd.name,
            description=cmd.description,
            public=cmd.public,
            variables=variables,
            entries=0,
            created_at=NOON,
            last_entry_at=None,
            version=1,
        )
        self.datasets[dataset.id] = dataset
        self.keys[dataset.id] = (_new_key(), _new_key())
        return DatasetCreated(dataset=dataset, keys=self._sealed(dataset.id))

    def _sealed(self, name: UUID) -> DatasetKeys:
        read, write = (self.vault.seal(key, "ingest.key") for key in self.keys[name])
        return DatasetKeys(read_key=read, write_key=write)

    def _list(self, query: ListDatasets, caller: Caller) -> DatasetPage:
        found = self.deleted if query.deleted else self.datasets
        return DatasetPage(items=tuple(found.values())[: query.limit], next=None)

    def _change(self, cmd: ChangeDataset, caller: Caller) -> Dataset:
        dataset = self._dataset(cmd.dataset_id)
        if cmd.if_version not in (None, dataset.version):
            raise Refusal("read it again", code="changed_meanwhile", status=412)
        changes = {"name": cmd.name, "description": cmd.description, "public": cmd.public}
        given = {name: value for name, value in changes.items() if value is not None}
        changed = msgspec.structs.replace(dataset, version=dataset.version + 1, **given)
        self.datasets[dataset.id] = changed
        return changed

    def _delete(self, cmd: DeleteDataset, caller: Caller) -> Nothing:
        self.deleted[cmd.dataset_id] = self._dataset(cmd.dataset_id)
        del self.datasets[cmd.dataset_id]
        return Nothing()

    def _restore(self, cmd: RestoreDataset, caller: Caller) -> Dataset:
        if cmd.dataset_id not in self.deleted:
            raise NotFound("no such dataset")
        self.datasets[cmd.dataset_id] = self.deleted.pop(cmd.dataset_id)
        return self.datasets[cmd.dataset_id]

    def _rotate(self, cmd: RotateDatasetKey, caller: Caller) -> DatasetKeys:
        self._dataset(cmd.dataset_id)
        read, write = self.keys[cmd.dataset_id]
        self.keys[cmd.dataset_id] = (_new_key(), write) if cmd.kind == "read" else (read, _new_key())
        return self._sealed(cmd.dataset_id)

    def _resolve(self, query: ResolveKey, caller: Caller) -> KeyHolder:
        for name, (read, write) in self.keys.items():
            for kind, key in (("read", read), ("write", write)):
                if self.vault.digest(key, "ingest.key") == query.digest:
                    return msgspec.convert(
                        {"dataset_id": name, "kind": kind, "project": "default"}, KeyHolder
                    )
        raise Refusal("no such key", code="not_found", status=404)  # as it comes over the wire

    def _write(self, cmd: WriteReadings, caller: Caller) -> ReadingsWritten:
        self._dataset(cmd.dataset_id)
        scopes = caller.principal.scopes
        if scopes and scopes != (f"dataset:{cmd.dataset_id}:write",):
            raise Forbidden("this key may not write here")
        before = self._all(cmd.dataset_id)
        reading = Reading(entry=len(before) + 1, at=NOON, values={"size": len(cmd.body)})
        self.readings[cmd.dataset_id] = [*before, reading]
        return ReadingsWritten(entries=(EntryStored(entry=reading.entry, at=reading.at),))

    def _all(self, name: UUID) -> list[Reading]:
        self._dataset(name)
        return self.readings.get(name, [])

    def _reading(self, name: UUID, entry: int) -> Reading:
        for reading in self._all(name):
            if reading.entry == entry:
                return reading
        raise NotFound("no such reading")

    def _correct(self, cmd: CorrectReading, caller: Caller) -> Reading:
        reading = self._reading(cmd.dataset_id, cmd.entry)
        return msgspec.structs.replace(reading, values={"raw": cmd.values.decode()})

    def _delete_reading(self, cmd: DeleteReading, caller: Caller) -> DeletedReadings:
        self._reading(cmd.dataset_id, cmd.entry)
        return DeletedReadings(deleted=1)

    def _clear(self, cmd: DeleteReadings, caller: Caller) -> DeletedReadings:
        gone = len(self._all(cmd.dataset_id))
        self.readings[cmd.dataset_id] = []
        return DeletedReadings(deleted=gone)

    def _ledger(self, query: GetLedger, caller: Caller) -> Ledger:
        stored = len(self._all(query.dataset_id))
        return Ledger(stored=stored, duplicates=0, rejected={}, expired=0, in_flight=0, last_entry=stored)


async def _two_parts(query: ExportReadings) -> AsyncIterator[bytes]:
    yield b"at,t\n"
    yield b"2026-01-31T12:00:00.000000Z,1\n"


def _new_key() -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(16))
