"""What the gateway can be told, one field per environment variable."""

from __future__ import annotations

from typing import Annotated, Literal

from shared.runtime import ServiceSettings
from shared.settings import note


class Settings(ServiceSettings, frozen=True, kw_only=True):
    """One field per variable."""

    listen: Annotated[str, note("address to listen on; 0.0.0.0 or :: for all")] = "127.0.0.1"
    host: Annotated[str, note("address of the web port when it is another one")] = ""
    port: Annotated[int, note("port to listen on, 0 for any", ge=0, le=65535)] = 8080
    reuse_port: Annotated[bool, note("share the port with other gateways of this machine")] = False
    listen_fd: Annotated[int, note("number of an open listening socket to use instead, 0 for none", ge=0)] = 0
    tls_cert: Annotated[str, note("PEM file with the certificate and those between it and its root")] = ""
    tls_key: Annotated[str, note("PEM file with the certificate's key; empty: in the same file")] = ""
    http_port: Annotated[
        int,
        note("with TLS: port of plain HTTP, for devices; others are sent to https; 0: none", ge=0, le=65535),
    ] = 0
    http_listen_fd: Annotated[int, note("as LISTEN_FD, for plain HTTP", ge=0)] = 0
    hsts_seconds: Annotated[
        int, note("how long browsers remember to come over https only; 0: they are not told", ge=0)
    ] = 30 * 86_400
    management_url: Annotated[
        str, note("RabbitMQ's management API, with an account that may only look", secret=True)
    ] = ""
    metrics_token: Annotated[
        str, note("opens /metrics to other machines; empty: closed to them", secret=True)
    ] = ""
    reply_queue: Annotated[
        Literal["shared", "request"], note("one reply queue per process, or one per request")
    ] = "shared"
    public_url: Annotated[str, note("how clients reach this server; empty: as they did")] = ""
    cors_origins: Annotated[str, note("origins whose pages may read answers, separated by spaces, or *")] = (
        "*"
    )
    drain_seconds: Annotated[float, note("longest wait for running requests when stopping", ge=0)] = 10.0
    quiet_seconds: Annotated[
        float, note("when stopping, how long a silent connection may still send a request", ge=0)
    ] = 2.0
    body_bytes: Annotated[int, note("largest JSON body", ge=1)] = 256 << 10
    readings_bytes: Annotated[int, note("largest body of readings", ge=1, le=1 << 20)] = 1 << 20
    header_bytes: Annotated[int, note("largest request line and headers together", ge=1024)] = 32 << 10
    header_seconds: Annotated[float, note("longest time until headers are complete", gt=0)] = 10.0
    body_seconds: Annotated[float, note("longest time without progress of a body", gt=0)] = 10.0
    body_bytes_per_second: Annotated[int, note("what a body must bring after body_seconds", ge=1)] = 16 << 10
    answer_bytes_per_second: Annotated[
        int, note("what a client must take of a waiting answer, looked at every body_seconds; 0: any", ge=0)
    ] = 2 << 10
    idle_seconds: Annotated[
        float,
        note("how long a connection may be silent between requests; above that of a proxy in front", gt=0),
    ] = 15.0
    rate_sign_in: Annotated[
        str, note("sign-ins and sign-ups of an address: at once/seconds until as many again; 0: no limit")
    ] = "60/60"
    rate_anonymous: Annotated[str, note("as RATE_SIGN_IN, other requests of an address without a token")] = (
        "1200/60"
    )
    rate_callers: Annotated[str, note("as RATE_SIGN_IN, requests of one person or one dataset key")] = "0"
    trusted_proxies: Annotated[
        str, note("addresses or networks whose X-Forwarded-* are believed, separated by spaces")
    ] = ""
