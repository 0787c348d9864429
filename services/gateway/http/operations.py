"""What operators, tools and the curious ask the gateway itself."""

from __future__ import annotations

from functools import cache
from html import escape
from pathlib import Path
from typing import Any

from msgspec import Struct
from prometheus_client import CONTENT_TYPE_LATEST

from services.gateway.http import submissions
from services.gateway.http.answers import JSON, Answer, to_json
from services.gateway.http.elsewhere import check_metrics_token
from services.gateway.http.gateway import Gateway
from services.gateway.http.incoming import Incoming
from services.gateway.http.problems import PROBLEMS, Problem
from services.gateway.http.table import ANYONE, USER, Routes, form_of
from shared import http
from shared.bus.topology import SERVICES
from shared.contracts.about import GetAbout, Probe, get_about, probe
from shared.contracts.base import owner_of
from shared.contracts.registry import kind_of, messages
from shared.errors import NotFound
from shared.vault import Vault

routes = Routes("Operations")
STATIC = Path(__file__).parent.parent / "static"
SWAGGER = STATIC / "swagger-ui"
TEXT, HTML = "text/plain; charset=utf-8", "text/html; charset=utf-8"
_FILES = {
    "swagger-ui-bundle.js": (SWAGGER, "text/javascript; charset=utf-8"),
    "swagger-ui.css": (SWAGGER, "text/css; charset=utf-8"),
    "favicon-32x32.png": (SWAGGER, "image/png"),
    "LICENSE": (SWAGGER, TEXT),
    "NOTICE": (SWAGGER, TEXT),
    "start.js": (STATIC, "text/javascript; charset=utf-8"),
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_DAY = "public, max-age=86400"


class Links(Struct, frozen=True):
    """Where things are."""

    name: str
    version: str
    links: dict[str, str]


class Health(Struct, frozen=True):
    """The process answers; `commit` is `unknown` when nobody said it."""

    status: str
    service: str
    version: str
    commit: str


class Readiness(Struct, frozen=True):
    """Whether requests can be served; `missing` names each dependency that is away, with the reason."""

    ready: bool
    missing: dict[str, str]


class Topic(Struct, frozen=True):
    """A message a service handles or announces."""

    topic: str
    kind: str
    text: str


class Service(Struct, frozen=True):
    """A service, how many processes take its messages (null: not known), and its topics."""

    name: str
    processes: int | None
    topics: tuple[Topic, ...]


class Services(Struct, frozen=True):
    """Every service that has contracts here."""

    items: tuple[Service, ...]


@routes.page("/", "Where things are", Links)
async def links(incoming: Incoming, gateway: Gateway) -> Answer:
    """A door that says what is behind it."""
    known = {
        "documentation": "/docs",
        "openapi": "/openapi.json",
        "services": "/v1/services",
        "problems": "/problems",
        "health": "/healthz",
        "readiness": "/readyz",
        "metrics": "/metrics",
    }
    return _json(Links("Posthouse", http.VERSION, known))


@routes.page("/healthz", "Whether the process answers, with version and commit", Health)
async def healthz(incoming: Incoming, gateway: Gateway) -> Answer:
    """Says nothing about dependencies: restarting us would not bring them back."""
    return _json(http.health("gateway", gateway.settings.commit))


@routes.page("/readyz", "Whether requests can be served, and which dependency is missing", Readiness)
async def readyz(incoming: Incoming, gateway: Gateway) -> Answer:
    """503 while something is missing or this gateway is stopping."""
    status, body = http.readiness(await gateway.missing_now())
    return Answer(status, body)


@routes.page("/metrics", "Counters for Prometheus", str, refuses=("unauthorized", "forbidden"))
async def metrics(incoming: Incoming, gateway: Gateway) -> Answer:
    """The text format; from another machine with `Authorization: Bearer` and the token of the settings."""
    check_metrics_token(incoming, gateway.settings.metrics_token)
    return Answer(
        200, await http.exposition(gateway.meter.registry, gateway.missing_now), CONTENT_TYPE_LATEST
    )


@routes.page("/v1/services", "The services and the messages they speak", Services)
async def services(incoming: Incoming, gateway: Gateway) -> Answer:
    """Topics from the contracts, processes from the broker."""
    counted, known = gateway.processes(), topics()
    names = sorted({*counted, *known})
    return _json(Services(tuple(Service(name, counted.get(name), known.get(name, ())) for name in names)))


class ServicePath(Struct, frozen=True):
    """The name of a service."""

    service: str


def about(incoming: Incoming, vault: Vault) -> GetAbout:
    """Ask the service that is named."""
    return get_about(_known_service(incoming))()


def probing(incoming: Incoming, vault: Vault) -> Probe:
    """Send the text to the service that is named."""
    return probe(_known_service(incoming))(text=incoming.form.text)


def _known_service(incoming: Incoming) -> str:
    name: str = incoming.path.service
    if name not in SERVICES:
        raise NotFound("There is no such service; /v1/services lists them.")
    return name


ONE = "/v1/services/{service}"
routes.get(ONE, GetAbout, who=USER, path_form=ServicePath, make=about)
routes.post(
    f"{ONE}/probes",
    Probe,
    who=USER,
    path_form=ServicePath,
    form=form_of(Probe, "Probe", "text"),
    make=probing,
)


@routes.page(
    "/v1/submissions/{name}",
    "What became of a request answered with 202",
    submissions.SubmissionState,
    who=ANYONE,
)
async def submission(incoming: Incoming, gateway: Gateway) -> Answer:
    """queued, stored with what it answered, or refused with the problem; 404 for anybody else."""
    return _json(await submissions.ask(incoming.path.name, incoming, gateway))


@routes.page("/openapi.json", "This API as OpenAPI 3.1", dict[str, Any])
async def openapi(incoming: Incoming, gateway: Gateway) -> Answer:
    """Made from the same table as the routes."""
    return Answer(200, gateway.openapi, JSON, {"Cache-Control": "no-cache"})


@routes.page("/docs", "This API to read and try", str)
async def docs(incoming: Incoming, gateway: Gateway) -> Answer:
    """Swagger UI from our own files; no other host is asked."""
    return Answer(
        200, _read("docs.html"), HTML, {"Content-Security-Policy": _POLICY, "Cache-Control": "no-cache"}
    )


@routes.page("/docs/{file}", "A file of the documentation page", bytes)
async def docs_file(incoming: Incoming, gateway: Gateway) -> Answer:
    """Only the files of the page."""
    found = _FILES.get(incoming.path.file)
    if found is None:
        raise NotFound("The documentation has no such file.")
    folder, kind = found
    return Answer(200, _bytes_of(folder / incoming.path.file), kind, {"Cache-Control": _DAY})


@routes.page("/problems", "Every problem this API knows", str)
async def problems(incoming: Incoming, gateway: Gateway) -> Answer:
    """One line each."""
    return _words(incoming, "Problems", sorted(PROBLEMS.values(), key=lambda page: (page.status, page.code)))


@routes.page("/problems/{code}", "What a problem means and what to do", str)
async def problem_page(incoming: Incoming, gateway: Gateway) -> Answer:
    """HTML for browsers, else text."""
    found = PROBLEMS.get(incoming.path.code)
    if found is None:
        raise NotFound("No problem has this code; /problems lists them.")
    return _words(incoming, found.title, [found])


@cache
def topics() -> dict[str, tuple[Topic, ...]]:
    """Every message of the contracts by its owner."""
    found: dict[str, tuple[Topic, ...]] = {}
    for name, message in messages().items():
        text = " ".join((message.__doc__ or "").partition("\n\n")[0].split())
        owner = owner_of(name)
        found[owner] = (*found.get(owner, ()), Topic(name, kind_of(message), text))
    return found


def _json(content: Any) -> Answer:
    return Answer(200, to_json(content))


def _words(incoming: Incoming, title: str, pages: list[Problem]) -> Answer:
    headers = {"Cache-Control": _DAY, "Vary": "Accept"}
    if "text/html" not in incoming.headers.get("Accept", ""):
        text = "\n\n".join(f"{page.status} {page.code}: {page.title}.\n{page.advice}" for page in pages)
        return Answer(200, (text + "\n").encode(), TEXT, headers)
    parts = "".join(
        f'<h2><a href="/problems/{page.code}">{page.code}</a> <small>{page.status}</small></h2>'
        f"<p><strong>{escape(page.title)}.</strong> {escape(page.advice)}</p>"
        for page in pages
    )
    text = _read("problems.html").decode().replace("{title}", escape(title)).replace("{parts}", parts)
    headers["Content-Security-Policy"] = (
        "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
    )
    return Answer(200, text.encode(), HTML, headers)


def _read(name: str) -> bytes:
    return _bytes_of(STATIC / name)


@cache
def _bytes_of(path: Path) -> bytes:
    return path.read_bytes()
