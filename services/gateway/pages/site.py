"""Pages as rows of a table: who may look, what they send, what becomes of a failure."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeVar
from urllib.parse import parse_qs, quote

import structlog
from aiohttp import web
from aiohttp.hdrs import CONTENT_TYPE, SET_COOKIE
from multidict import CIMultiDict

from services.gateway.http.body import read_body
from services.gateway.http.gateway import Gateway
from services.gateway.http.incoming import INCOMING, Incoming
from services.gateway.http.problems import Turned, code_of, problem_of
from services.gateway.http.rates import SIGN_IN
from services.gateway.http.table import Handle
from services.gateway.pages import flash
from services.gateway.pages.view import render
from shared import context
from shared.bus.requests import CallFailed
from shared.contracts.auth import Account, GetMe
from shared.contracts.base import Command, FieldError, Query
from shared.errors import Forbidden, Refusal

log = structlog.get_logger()
R = TypeVar("R")
Who = Literal["anyone", "user", "administrator"]
ADMINISTRATOR: Final = "administrator"
HTML = "text/html; charset=utf-8"
FORM = "application/x-www-form-urlencoded"
FORM_BYTES = 256 << 10
_ONCE = re.compile(r"[0-9a-zA-Z_-]{16,64}", re.ASCII)
# uPlot positions its parts through the style object, which no policy forbids; no inline style is needed.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS = {
    CONTENT_TYPE: HTML,
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@dataclass
class Visit:
    """One person at one page: what they sent, who they are (None: nobody is signed in), what they hear.

    `query` and `form` hold the last value of each name, `lists` every value of each name of the form.
    """

    incoming: Incoming
    gateway: Gateway
    request: web.Request
    viewer: Account | None = None
    query: dict[str, str] = field(default_factory=dict)
    form: dict[str, str] = field(default_factory=dict)
    lists: dict[str, list[str]] = field(default_factory=dict)
    told: tuple[flash.Told, ...] = ()

    @property
    def path(self) -> Mapping[str, str]:
        """The named parts of the path."""
        return self.request.match_info

    @property
    def is_administrator(self) -> bool:
        """Whether the person looks after this server."""
        if self.viewer is None or ADMINISTRATOR not in self.viewer.roles:
            return False
        # Services decide by the token, which learns of a new role when it is renewed.
        return ADMINISTRATOR in self.incoming.principal.roles

    @property
    def origin(self) -> str:
        """Scheme, host and port as this person reaches us."""
        return self.gateway.browser.origin(self.incoming)

    async def ask(self, message: Command[R] | Query[R]) -> R:
        """Send a message as this person and wait; a form that is sent twice does its work once."""
        try:
            return await self.gateway.ask(message, self.incoming)
        except Refusal as refusal:
            if refusal.code != "key_reused" or not self.incoming.idempotency_key:
                raise
        # Back in the browser's history, something else typed, sent again: that is another wish.
        self.incoming.idempotency_key = ""
        return await self.gateway.ask(message, self.incoming)

    def page(self, template: str, status: int = 200, **more: Any) -> web.Response:
        """The page; what is told is told once."""
        known = {"visit": self, "viewer": self.viewer, "told": self.told, "again": ""}
        body = render(template, **known | more)
        headers: CIMultiDict[str] = CIMultiDict(_HEADERS)
        if self.told:
            headers.add(SET_COOKIE, self._safe(flash.forget()))
        return web.Response(status=status, body=body, headers=headers)

    def go(
        self, path: str, told: str = "", *, kind: flash.Kind = "success", cookies: tuple[str, ...] = ()
    ) -> web.Response:
        """To another page (303), which says `told` once; `cookies` are further Set-Cookie values."""
        headers: CIMultiDict[str] = CIMultiDict({"Location": path})
        for cookie in cookies:
            headers.add(SET_COOKIE, cookie)
        if told:
            said = flash.remember(self.gateway.vault, flash.Told(kind, told))
            headers.add(SET_COOKIE, self._safe(said))
        return web.Response(status=303, headers=headers)

    def _safe(self, cookie: str) -> str:
        """What came encrypted goes back encrypted only."""
        return f"{cookie}; Secure" if self.incoming.secure else cookie

    def own_path(self, name: str = "next", otherwise: str = "/") -> str:
        """Where the person wanted to go: a path of ours, or `otherwise`."""
        wanted = self.form.get(name) or self.query.get(name, "")
        is_ours = wanted.startswith("/") and not wanted.startswith(("//", "/\\"))
        return wanted if is_ours and wanted.isascii() and wanted.isprintable() else otherwise


Serve = Callable[[Visit], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Page:
    """One row; `rate` names the limit that counts it, beside that of callers.

    `for_programs` answers whoever does not ask for HTML, and is not told who calls.
    """

    method: str
    path: str
    who: Who
    serve: Serve
    rate: str = ""
    for_programs: Handle | None = None


@dataclass
class Site:
    """A module's pages."""

    rows: list[Page] = field(default_factory=list)

    def get(
        self, path: str, who: Who = "user", for_programs: Handle | None = None
    ) -> Callable[[Serve], Serve]:
        """Something to look at."""
        return self._add("GET", path, who, for_programs=for_programs)

    def post(self, path: str, who: Who = "user", rate: str = "") -> Callable[[Serve], Serve]:
        """What a form of ours sends, urlencoded; answered with `Visit.go`, or the form again."""
        return self._add("POST", path, who, rate)

    def _add(
        self, method: str, path: str, who: Who, rate: str = "", for_programs: Handle | None = None
    ) -> Callable[[Serve], Serve]:
        def register(serve: Serve) -> Serve:
            self.rows.append(Page(method, path, who, serve, rate, for_programs))
            return serve

        return register

    def add_to(self, app: web.Application, gateway: Gateway) -> None:
        """Serve these pages."""
        for row in self.rows:
            resource = app.router.add_resource(row.path)
            handle = _handler(row, gateway, resource.canonical)
            resource.add_route(row.method, handle)
            if row.method == "GET":
                resource.add_route("HEAD", handle)


def mistakes(error: Refusal) -> dict[str, str]:
    """What is wrong, by the field of the form; what belongs to no field is under the empty name."""
    found: dict[str, str] = {}
    for wrong in error.errors:
        found.setdefault(wrong.path, _sentence(wrong))
    return found or {"": error.detail}


def _sentence(wrong: FieldError) -> str:
    text = wrong.message or wrong.code
    if text.partition(" ")[0] in ("has", "is", "may", "must"):
        text = f"this {text}"
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def _handler(
    row: Page, gateway: Gateway, template: str
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handle(request: web.Request) -> web.StreamResponse:
        incoming = request[INCOMING]
        incoming.template = template
        visit = Visit(incoming, gateway, request)
        try:
            incoming.read_headers()
            if row.for_programs is not None and "text/html" not in incoming.headers.get("Accept", ""):
                return (await row.for_programs(incoming, gateway)).response()
            return await _serve(row, visit)
        except (ConnectionError, web.HTTPException):
            raise
        except Exception as error:
            return failure(visit, error)

    return handle


async def _serve(row: Page, visit: Visit) -> web.StreamResponse:
    incoming, gateway, request = visit.incoming, visit.gateway, visit.request
    visit.query = {name: values[-1] for name, values in parse_qs(incoming.raw_query, True).items()}
    visit.told = flash.told(gateway.vault, request.cookies)
    if row.method == "POST":
        gateway.browser.demand_same_origin(incoming)
    await _recognise(visit)
    await gateway.rates.admit(incoming, SIGN_IN if row.method == "POST" and row.who == "anyone" else "")
    if row.method == "POST":
        await _read_form(visit)
    if row.who != "anyone" and visit.viewer is None:
        wanted = request.path_qs if row.method == "GET" else "/"
        return visit.go(f"/login?next={quote(wanted, safe='/')}" if wanted != "/" else "/login")
    if row.who == ADMINISTRATOR and not visit.is_administrator:
        raise Forbidden("This page is for administrators.")
    return await row.serve(visit)


async def _recognise(visit: Visit) -> None:
    incoming = visit.incoming
    known = visit.gateway.callers.identify(visit.request.headers, incoming.peer)
    incoming.principal = await incoming.in_time(known)
    if incoming.principal.kind == "user":
        try:
            visit.viewer = await visit.ask(GetMe())
        except Refusal as error:
            if error.status not in (401, 403, 404):
                raise


async def _read_form(visit: Visit) -> None:
    incoming = visit.incoming
    incoming.body = await incoming.at_leisure(read_body(visit.request, (FORM,), FORM_BYTES))
    try:
        visit.lists = parse_qs(incoming.body.decode("utf-8"), True, errors="strict", max_num_fields=2_000)
    except (UnicodeDecodeError, ValueError):
        raise Turned("bad_request", "The form cannot be read.") from None
    visit.form = {name: values[-1] for name, values in visit.lists.items()}
    once = visit.form.get("_once", "")
    if _ONCE.fullmatch(once):
        incoming.idempotency_key = once


def failure(visit: Visit, error: BaseException) -> web.Response:
    """The page for what went wrong, in words that say what to do."""
    incoming = visit.incoming
    if isinstance(error, Refusal):
        status, code, detail = error.status, code_of(error), error.detail
    elif isinstance(error, CallFailed):
        status, code, detail = error.status, error.code, ""
    else:
        with context.bind(request_id=incoming.request_id, traceparent=incoming.traceparent):
            log.error("page_failed", exc_info=error)
        status, code, detail = 500, "internal", ""
    title, advice = words_of(code, status)
    if detail == problem_of(code, status).advice:
        detail = ""
    known = {"title": title, "detail": detail, "advice": advice, "retry": status >= 500}
    response = visit.page("error.html", status, **known)
    if seconds := getattr(error, "retry_after", 0):
        response.headers["Retry-After"] = str(seconds)
    if isinstance(error, Turned):
        response.headers.update(error.headers)
    return response


# What /problems says to programs, said to a person.
_FOR_PEOPLE = {
    "not_found": ("There is nothing here", "The address may have a slip in it, or what was here is gone."),
    "method_not_allowed": ("There is nothing to see here", "This address only takes what a form sends."),
    "forbidden": ("This is not for you", "Ask somebody who looks after this server."),
    "cross_site": (
        "The form came from elsewhere",
        "Nothing was changed. Open the page here and send it again; if it happens again, your browser hides "
        "where forms come from.",
    ),
    "too_many_requests": ("Too much at once", "Wait a moment, then try again."),
    "internal": (
        "A mistake on our side",
        "It is kept for whoever looks after this server: tell them the number of the request.",
    ),
    "unavailable": (
        "Not right now",
        "Something this page needs is away for the moment. Nothing was changed; trying again is safe.",
    ),
    "outcome_unknown": (
        "It took too long",
        "No answer came in time. What you sent may have been done: look before you send it again.",
    ),
}


def words_of(code: str, status: int) -> tuple[str, str]:
    """A title for a person, and what to do."""
    page = problem_of(code, status)
    return _FOR_PEOPLE.get(page.code) or (page.title, page.advice)


async def lost(request: web.Request, incoming: Incoming, gateway: Gateway, code: str) -> web.Response:
    """The page for an address that is none; whoever is signed in stays so, if that can be told."""
    visit = Visit(incoming, gateway, request)
    with suppress(Refusal, CallFailed):
        await _recognise(visit)
    return failure(visit, Turned(code))
