"""A small HTTP server that answers import and export as the API promises, and can be told to fail."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from aiohttp import web

WRONG = "not-a-number"
UNREADABLE = '5" pipe'


@dataclass
class StandIn:
    """Keeps rows; `failures` are answered first, in order: a status, or 0 for a connection that breaks.

    With `lost_answers` the batch is stored and then its answer fails.
    """

    password: str = "correct horse"
    datasets: list[dict[str, Any]] = field(default_factory=list)
    rows: list[dict[str, str]] = field(default_factory=list)
    positions: dict[str, int] = field(default_factory=dict)
    failures: list[int] = field(default_factory=list)
    lost_answers: list[int] = field(default_factory=list)
    answers: dict[str, tuple[int, dict[str, Any]]] = field(default_factory=dict)
    bodies: list[str] = field(default_factory=list)
    callers: list[str] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    page_size: int = 1_000
    export_breaks: bool = False
    on_batch: Callable[[int], None] = lambda position: None

    def app(self) -> web.Application:
        """The routes."""
        app = web.Application(middlewares=[self._fails])
        app.router.add_post("/v1/sessions", self._open_session)
        app.router.add_get("/v1/datasets", self._list)
        app.router.add_post("/v1/datasets", self._create)
        app.router.add_post("/v1/datasets/{id}/readings", self._write)
        app.router.add_get("/v1/datasets/{id}/readings.csv", self._export)
        app.router.add_get("/v1/datasets/{id}/imports/{source}", self._position)
        return app

    @web.middleware
    async def _fails(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.callers.append(request.headers.get("Authorization") or request.headers.get("X-API-Key", ""))
        if self.failures:
            status = self.failures.pop(0)
            if status == 0:
                assert request.transport is not None
                request.transport.abort()
            return problem(status, "unavailable", "try again")
        if self.tokens and request.path != "/v1/sessions" and self.callers[-1] not in self.tokens[-1:]:
            return problem(401, "unauthorized", "the token has expired")
        response: web.StreamResponse = await handler(request)
        return response

    async def _open_session(self, request: web.Request) -> web.Response:
        if (await request.json())["password"] != self.password:
            return problem(401, "unauthorized", "name or password is wrong")
        self.tokens.append(f"Bearer {uuid4().hex}")
        return web.json_response({"access_token": self.tokens[-1].removeprefix("Bearer ")}, status=201)

    async def _list(self, request: web.Request) -> web.Response:
        start = int(request.query.get("after", 0))
        items = self.datasets[start : start + self.page_size]
        more = start + self.page_size < len(self.datasets)
        return web.json_response({"items": items, "next": str(start + self.page_size) if more else None})

    async def _create(self, request: web.Request) -> web.Response:
        self.datasets.append({"id": str(uuid4()), **await request.json()})
        return web.json_response(self.datasets[-1], status=201)

    async def _position(self, request: web.Request) -> web.Response:
        source = request.match_info["source"]
        return web.json_response({"source": source, "position": self.positions.get(source, 0)})

    async def _write(self, request: web.Request) -> web.Response:
        key = request.headers["Idempotency-Key"]
        if key not in self.answers:
            self.answers[key] = self._store(request, await request.text())
        if self.lost_answers:
            return problem(self.lost_answers.pop(0), "outcome_unknown", "repeat with the same key")
        status, answer = self.answers[key]
        return web.json_response(answer, status=status)

    def _store(self, request: web.Request, body: str) -> tuple[int, dict[str, Any]]:
        self.bodies.append(body)
        if UNREADABLE in body:
            return 400, {"code": "malformed", "detail": "a quotation mark out of place"}
        reader = csv.DictReader(io.StringIO(body))
        kept: list[dict[str, str]] = []
        rejected: list[dict[str, Any]] = []
        for row in reader:
            if WRONG in row.values():
                rejected.append({"index": reader.line_num, "code": "bad_value", "message": "no number"})
            else:
                kept.append(row)
        if not kept:
            errors = [{"in": "body", "path": str(one.pop("index")), **one} for one in rejected]
            return 422, {"code": "nothing_stored", "detail": "no line was stored", "errors": errors}
        position = int(request.query["position"])
        self.positions[request.query["source"]] = position
        self.rows += kept
        self.on_batch(position)
        entries = [{"entry": len(self.rows) - len(kept) + n, "at": ""} for n in range(1, len(kept) + 1)]
        return 201, {"entries": entries, "rejected": rejected}

    async def _export(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/csv"})
        await response.prepare(request)
        await response.write(",".join(self.rows[0]).encode() + b"\n")
        for row in self.rows:
            await response.write(",".join(row.values()).encode() + b"\n")
            if self.export_breaks:
                assert request.transport is not None
                request.transport.abort()
        await response.write_eof()
        return response


def problem(status: int, code: str, detail: str) -> web.Response:
    """An error as every error is answered (RFC 9457)."""
    return web.json_response({"status": status, "code": code, "detail": detail}, status=status or 500)
