"""One row at work: who calls, what do they say, ask the service, answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import unquote_plus

import msgspec
import structlog
from aiohttp import web
from multidict import CIMultiDict

from services.gateway.http import submissions
from services.gateway.http.answers import Answer, renderer, to_json
from services.gateway.http.body import read_body
from services.gateway.http.connection import cut
from services.gateway.http.front import Front
from services.gateway.http.gateway import Gateway, StreamBroke, ending_of
from services.gateway.http.incoming import INCOMING, Incoming
from services.gateway.http.problems import Turned
from services.gateway.http.rates import SIGN_IN, TRIED
from services.gateway.http.short_way import KnownPaths
from services.gateway.http.table import ANYONE, PUBLIC, USER, Route
from services.gateway.http.validate import QueryReader, read_form, read_strings
from shared import context
from shared.bus.requests import Caller
from shared.contracts.base import FieldError, owner_of
from shared.errors import Forbidden, Invalid

log = structlog.get_logger()
SAFE = ("GET", "HEAD", "OPTIONS")


class Endpoint:
    """A row and what is worked out once from it; `known` are the paths it has served."""

    def __init__(self, row: Route, gateway: Gateway, front: Front, known: KnownPaths) -> None:
        self.row = self._row = row
        self._gateway = gateway
        self._front = front
        self._known = known
        self.limit: int = getattr(gateway.settings, row.limit)
        self._decoder = msgspec.json.Decoder(row.form) if row.form is not None else None
        self._query = QueryReader(row.query_form)
        self._has_path = bool(msgspec.structs.fields(row.path_form))
        self._template = row.template
        self._changes = row.method not in SAFE
        self.rate = SIGN_IN if row.message in TRIED else ""
        self._render = renderer(row.shows)

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        row, gateway = self._row, self._gateway
        incoming = request[INCOMING]
        self.enter(incoming)
        if row.who is not PUBLIC:
            await incoming.in_time(self._recognise(request, incoming))
            self.admit(incoming)
        if row.accepts:
            incoming.body = await incoming.at_leisure(read_body(request, row.accepts, self.limit))
        self._read(incoming, request)
        if row.handle is not None:
            return (await row.handle(incoming, gateway)).response()
        message = self.message(incoming)
        if row.part_type:
            return await self._stream(message, incoming, request)
        caller = incoming.caller(message)
        if self.is_queued(incoming):
            with gateway.counted(message.topic, "accepted"):
                await gateway.requester.submit(message, caller)
            return self.accepted(message.topic, caller, incoming).response()
        with gateway.counted(message.topic):
            reply = await gateway.requester.ask(message, caller)
        return self.answer(reply, incoming).response()

    async def _recognise(self, request: web.Request, incoming: Incoming) -> None:
        callers, proves_later = self._gateway.callers, self._row.proves_later
        incoming.principal = await callers.identify(request.headers, incoming.peer, proves_later=proves_later)
        await self._gateway.rates.admit(incoming, self.rate)

    def enter(self, incoming: Incoming) -> None:
        """The request is for this row: read its headers; raises Turned."""
        incoming.template = self._template
        incoming.read_headers()

    def admit(self, incoming: Incoming) -> None:
        """The caller is known; raises Turned (401, 403) or Forbidden."""
        if self._changes and incoming.by_cookie:
            self._gateway.browser.demand_same_origin(incoming)
        if self._row.who is not ANYONE:
            _admit(self._row, incoming)

    def is_queued(self, incoming: Incoming) -> bool:
        """Whether the answer is 202 as soon as the message is on disk."""
        return incoming.prefer.queued and self._row.queued

    def _read(self, incoming: Incoming, request: web.Request) -> None:
        """Fill path, query and form; raises Invalid with the mistakes of all three."""
        wrong: list[FieldError] = []
        if self._has_path:
            try:
                incoming.path = read_strings(self._row.path_form, dict(request.match_info), "path")
            except Invalid as error:
                wrong += error.errors
        self.read(incoming, wrong)
        if self._row.handle is None and not self._row.part_type:
            self._known.add(request.method, request.raw_path, self, incoming.path)

    def read(self, incoming: Incoming, wrong: list[FieldError]) -> None:
        """Fill query and form; raises Invalid with their mistakes after those of the path."""
        raw = incoming.raw_query
        try:
            incoming.query = self._query.read(_pairs(raw) if raw else ())
        except Invalid as error:
            wrong += error.errors
        if self._decoder is not None:
            try:
                incoming.form = read_form(self._decoder, incoming.body)
            except Invalid as error:
                wrong += error.errors
        if wrong:
            raise Invalid(_in_words(wrong), errors=wrong)

    def message(self, incoming: Incoming) -> Any:
        """The command or query this request asks for."""
        row = self._row
        if row.make is not None:
            return row.make(incoming, self._gateway.vault)
        values = msgspec.structs.asdict(incoming.query)
        if incoming.path is not None:
            values |= msgspec.structs.asdict(incoming.path)
        if incoming.form is not None:
            values |= msgspec.structs.asdict(incoming.form)
        assert row.message is not None
        return row.message(**values)

    def answer(self, reply: Any, incoming: Incoming) -> Answer:
        """The reply as HTTP."""
        row = self._row
        headers = dict(row.fields(reply)) if row.fields is not None else {}
        if incoming.prefer.applied:
            headers["Preference-Applied"] = incoming.prefer.applied
        if row.answers == 204:
            return Answer(204, headers=headers)
        if row.prints is not None and (body := row.prints(reply)) is not None:
            return Answer(row.answers, body, headers=headers)
        if row.show is not None:
            reply = row.show(reply, self._gateway.vault)
        if self._render is not None:
            reply = self._render(reply)
        return Answer(row.answers, to_json(reply), headers=headers)

    def accepted(self, topic: str, caller: Caller, incoming: Incoming) -> Answer:
        """202: the broker has it on disk."""
        name = submissions.name_of(self._gateway.vault, incoming.principal, owner_of(topic), caller.id)
        applied = ", ".join(filter(None, ("respond-async", incoming.prefer.applied)))
        headers = {"Location": f"/v1/submissions/{name}", "Preference-Applied": applied}
        return Answer(202, to_json(submissions.Accepted(submission=name)), headers=headers)

    async def _stream(self, message: Any, incoming: Incoming, request: web.Request) -> web.StreamResponse:
        """Headers go out with the first part, so that a refusal is still a problem."""
        gateway = self._gateway
        parts = gateway.requester.stream(message, incoming.caller(message))
        response = web.StreamResponse(headers=CIMultiDict({"Content-Type": self._row.part_type}))
        try:
            with gateway.counted(message.topic):
                part = await anext(parts, None)
                self._front.dress(incoming, response)
                await response.prepare(request)
                sending = _send(part, parts, response, request, incoming)
                part = None  # a quarter of a megabyte, and the rest may take hours
                await sending
        finally:
            close = getattr(parts, "aclose", None)
            if close is not None:
                await close()
        return response


async def _send(
    part: bytes | None,
    parts: AsyncIterator[bytes],
    response: web.StreamResponse,
    request: web.Request,
    incoming: Incoming,
) -> None:
    """Write the parts as fast as the client takes them; when they break off, so does the connection."""
    try:
        while part is not None:
            await response.write(part)
            part = await anext(parts, None)
        await response.write_eof()
        return
    except Exception as error:
        # Neither the last chunk nor an orderly end: nobody takes a part for the whole.
        cut(request.transport)
        ending = ending_of(error)
        if not isinstance(error, ConnectionError):
            with context.bind(request_id=incoming.request_id, traceparent=incoming.traceparent):
                log.warning("stream_broke", reason=repr(error))
    except BaseException:
        cut(request.transport)
        raise
    # A new error: aiohttp's task keeps it in a cycle, and with it all frames and what they were to send.
    part = None
    raise StreamBroke(ending)


def _admit(row: Route, incoming: Incoming) -> None:
    kind = incoming.principal.kind
    if kind == "anonymous":
        what = "an access token" if row.who is USER else "an access token or a dataset key"
        headers = {"WWW-Authenticate": 'Bearer realm="posthouse"'}
        raise Turned("unauthorized", f"This needs {what}.", headers=headers)
    if row.who is USER and kind != "user":
        raise Forbidden("This needs the access token of a person; a dataset key opens only its dataset.")


def _pairs(query: str) -> list[tuple[str, str]]:
    """The pairs of a query string; raises Turned (400) when it is not UTF-8."""
    pairs = []
    for part in query.split("&"):
        if part:
            name, _, value = part.partition("=")
            try:
                pairs.append((unquote_plus(name, errors="strict"), unquote_plus(value, errors="strict")))
            except UnicodeDecodeError:
                raise Turned("not_utf8", "The query is not UTF-8.") from None
    return pairs


def _in_words(wrong: list[FieldError]) -> str:
    return "The request has a mistake." if len(wrong) == 1 else f"The request has {len(wrong)} mistakes."
