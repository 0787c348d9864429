"""Raw requests that are wrong in every way there is."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from random import Random

DEEP = 200_000


@dataclass(frozen=True)
class Order:
    """How many of them; `dataset` and `key` are one that may be written to."""

    url: str
    dataset: str
    key: str
    requests: int
    seed: str


Make = Callable[[Random, Order], bytes]
KINDS: list[Make] = []


def kind(make: Make) -> Make:
    """Add to what is sent."""
    KINDS.append(make)
    return make


def request(
    dice: Random,
    order: Order,
    body: bytes,
    *headers: bytes,
    content: bytes = b"application/json",
    length: bytes | None = None,
) -> bytes:
    """A POST that is right but for what is given."""
    path = dice.choice(
        (b"/v1/setup", b"/v1/sessions", b"/v1/datasets/%s/readings" % order.dataset.encode(), b"/v1/datasets")
    )
    head = [
        b"POST %s HTTP/1.1" % path,
        b"Host: x",
        b"X-API-Key: " + order.key.encode(),
        b"Content-Type: " + content,
        *headers,
    ]
    if length is None and not any(each.startswith(b"Transfer-Encoding") for each in headers):
        length = b"%d" % len(body)
    if length is not None:
        head.append(b"Content-Length: " + length)
    return b"\r\n".join(head) + b"\r\n\r\n" + body


GOOD = (
    b'{"values":{"n":1}}',
    b'[{"at":"2026-01-01T00:00:00Z","values":{"n":1.5}},{"values":{"n":"text"}}]',
    b'{"name":"ann","email":"a@example.org","password":"correct horse battery"}',
    b'{"name":"a dataset","variables":[{"tag":"n","unit":"m"}]}',
)
BROKEN_JSON = (
    b"", b"{", b'{"values":', b"{}{}", b"nul", b"NaN", b"-Infinity", b'{"values":{"n":1e999}}', b"'",
    b"[1,]",
    b'{"values":{"n":' + b"9" * 400 + b"}}", b'{"values":{"n":0x1}}', b'{"values":{"n":1,"n":2}}',
    b"\xef\xbb\xbf{}",
    b'{"values":{"n":-0.0}}', b'{"name":"\\ud800"}', b'{"values":{"n":"\\u0000"}}', b'{"\\u0000":1}', b"\0",
    b'{"values":{"' + b"n" * 70_000 + b'":1}}', b"[" + b"{}," * 20_000 + b"{}]", b'"' + b"\\" * 999 + b'"',
)  # fmt: skip
NO_TEXT = (
    b"\xff", b"\xfe\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\x80" * 50, b"\xe2\x82",
    b"\xf8\x88\x80\x80\x80",
)  # fmt: skip


@kind
def broken_json(dice: Random, order: Order) -> bytes:
    """No JSON, or values nobody can hold."""
    return request(dice, order, dice.choice(BROKEN_JSON))


@kind
def half_a_body_of_json(dice: Random, order: Order) -> bytes:
    """Cut off anywhere, framed as if it were whole."""
    body = dice.choice(GOOD)
    return request(dice, order, body[: dice.randrange(len(body))])


@kind
def no_utf8(dice: Random, order: Order) -> bytes:
    """Bytes that are no text, in a text."""
    body = bytearray(dice.choice(GOOD))
    at = dice.randrange(len(body))
    body[at:at] = dice.choice(NO_TEXT)
    return request(dice, order, bytes(body))


@kind
def charsets(dice: Random, order: Order) -> bytes:
    """Texts in other character sets, called so or not."""
    name = dice.choice(("utf-16", "utf-32", "latin-1", "cp500", "utf-7", "klingon", "utf-8\0", "", '"'))
    coded = name if name in ("utf-16", "utf-32", "latin-1", "cp500", "utf-7") else "utf-8"
    body = dice.choice(GOOD).decode().encode(coded)
    return request(dice, order, body, content=f"application/json; charset={name}".encode("latin-1"))


@kind
def other_types(dice: Random, order: Order) -> bytes:
    """CSV, lines, forms and rubbish."""
    content = dice.choice(
        (b"text/csv", b"application/ndjson", b"multipart/form-data; boundary=", b"text/xml",
         b"\xff/\xfe", b";;;=", b"")
    )  # fmt: skip
    body = dice.choice(
        (b'at,n\n"2026', b"at\n" * 5_000, b"\0,\0\n", b'{"values":{}}\n{', b"--\r\n", b'"\n' * 99)
    )
    return request(dice, order, body, content=content)


@kind
def nesting(dice: Random, order: Order) -> bytes:
    """As deep as a body may be long."""
    opening = dice.choice((b"[", b'{"a":', b'{"values":{"n":[', b'[{"values":'))
    inside = dice.choice((b"", b'{"name":', b'{"values":{"n":'))
    times = min(DEEP, 250_000 // len(opening)) if dice.random() < 0.5 else dice.randrange(1, 3_000)
    closing = b"]" * times if dice.random() < 0.3 and opening == b"[" and times < 120_000 else b""
    return request(dice, order, inside + opening * times + closing)


@kind
def lengths(dice: Random, order: Order) -> bytes:
    """Lengths that are none, contradict each other or the body."""
    body = dice.choice(GOOD)
    wrong = dice.choice(
        (b"-1", b"ten", b"0x10", b"+5", b"1_0", b"5, 5", b"5,6", b"99999999999999999999", b" ", b"1e3",
         b"\xb2",
         b"%d" % (len(body) - 3), b"%d" % (len(body) + 3), b"300000", b"1048577")
    )  # fmt: skip
    second = (b"Content-Length: %d" % len(body),) if dice.random() < 0.4 else ()
    return request(dice, order, body, *second, length=wrong)


@kind
def two_framings(dice: Random, order: Order) -> bytes:
    """Transfer-Encoding beside Content-Length, twice, or of a kind nobody knows."""
    coding = dice.choice(
        (b"chunked", b"chunked, chunked", b"cow", b"gzip, chunked", b"chunked, gzip", b"\x0bchunked",
         b"identity", b"")
    )  # fmt: skip
    length = b"5" if dice.random() < 0.5 else None
    headers = [b"Transfer-Encoding: " + coding] * dice.choice((1, 1, 2))
    return request(dice, order, b"5\r\nhello\r\n0\r\n\r\n", *headers, length=length)


@kind
def bad_chunks(dice: Random, order: Order) -> bytes:
    """Chunks of no size, of another size, without an end."""
    body = dice.choice(
        (b"xyz\r\n", b"-5\r\nhello\r\n0\r\n\r\n", b"5\r\nhel", b"5\nhello\n0\n\n",
         b"ffffffffffffffff\r\n", b"5;a=b\r\nhello\r\n",
         b"5\r\nhello0\r\n\r\n", b"0\r\nX: y\r\n\r\n", b"0\r\n" + b"X: y\r\n" * 2_000,
         b"5;" + b"a" * 20_000, b"\r\n", b"1\r\n{\r\n" * 900)
    )  # fmt: skip
    return request(dice, order, body, b"Transfer-Encoding: chunked")


@kind
def nul_bytes(dice: Random, order: Order) -> bytes:
    """NUL in any place."""
    data = bytearray(request(dice, order, dice.choice(GOOD)))
    for _ in range(dice.randint(1, 5)):
        at = dice.randrange(len(data))
        data[at : at + dice.randint(0, 1)] = b"\0"
    return bytes(data)


@kind
def large_headers(dice: Random, order: Order) -> bytes:
    """20 KB in a header, in an address, in a cookie; ten thousand headers."""
    rubbish = dice.choice((b"b", b"\xff", b"%", b";=", b'"', b",", b" ", b"."))
    long = rubbish * (20_480 // len(rubbish))
    name = dice.choice(
        (b"A", b"Cookie", b"Authorization", b"X-API-Key", b"Prefer", b"If-None-Match", b"Accept", b"Host")
    )
    return dice.choice(
        (
            b"GET / HTTP/1.1\r\nHost: x\r\n%s: %s\r\n\r\n" % (name, long),
            b"GET /v1/me HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 10_000 + b"\r\n",
            b"GET /v1/me HTTP/1.1\r\nHost: x\r\n"
                + b"".join(b"%s%d: %s\r\n" % (name, n, long[:4_000]) for n in range(12)) + b"\r\n",
            b"GET /%s HTTP/1.1\r\nHost: x\r\n\r\n" % (b"a" * 20_480),
            b"GET /v1/me HTTP/1.1\r\nHost: x\r\n" + b"a" * 20_480 + b": b\r\n\r\n",
        )
    )  # fmt: skip


@kind
def header_values(dice: Random, order: Order) -> bytes:
    """Headers the gateway reads, with values it cannot."""
    name = dice.choice(
        (b"Authorization", b"X-API-Key", b"Cookie", b"Prefer", b"Idempotency-Key", b"traceparent",
         b"X-Request-Id", b"Origin",
         b"If-Match", b"If-None-Match", b"Accept", b"Accept-Language", b"Expect", b"Connection",
         b"Upgrade", b"X-Forwarded-For",
         b"X-Forwarded-Proto", b"Content-Encoding", b"Host", b"Range", b"Sec-Fetch-Site", b"TE", b"Trailer")
    )  # fmt: skip
    value = dice.choice(
        (b"", b" ", b"\xff\xfe", b"a\x0bb", b"," * 200, b"=" * 50, b'"', b"Bearer", b"Bearer a.b.c",
         b"Bearer " + b"eyJ9." * 300,
         b"Basic ////", b"100-continue", b"tea", b"upgrade", b"websocket", b"h2c",
         b"close, keep-alive", b"wait=-1", b"wait=9" * 80,
         b"handling=strict, respond-async, wait=1", b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-00",
         b"null", b"*", b'W/"1", *', b"a b",
         b"posthouse=" + b"%" * 99, b"__Host-posthouse=a; posthouse=b", b"gzip", b"::1, 999.1.1.1",
         b"bytes=9-1", b"\t", b"x" * 300)
    )  # fmt: skip
    path = dice.choice((b"/", b"/v1/me", b"/v1/datasets", b"/v1/sessions", b"/metrics", b"/docs"))
    method = dice.choice((b"GET", b"GET", b"DELETE", b"POST", b"OPTIONS", b"HEAD"))
    return b"%s %s HTTP/1.1\r\nHost: x\r\n%s: %s\r\nContent-Length: 0\r\n\r\n" % (method, path, name, value)


@kind
def first_lines(dice: Random, order: Order) -> bytes:
    """Methods, versions and addresses out of this world."""
    method = dice.choice(
        (b"BREW", b"PROPFIND", b"TRACE", b"CONNECT", b"get", b"G" * 5_000, b"", b"\xff", b"GET\tPOST",
         b"PRI", b"M-SEARCH", b"PUT")
    )  # fmt: skip
    version = dice.choice(
        (b"HTTP/1.1", b"HTTP/1.0", b"HTTP/0.9", b"HTTP/9.9", b"HTTP/2.0", b"HTTP/1", b"HTTPS/1.1", b"",
         b"HTTP/1.1\0", b"ICY", b"HTTP/11")
    )  # fmt: skip
    path = dice.choice(
        (b"/", b"*", b"", b"x", b"//", b"http://[::1", b"http://x:99999/", b"x:1", b"?", b"/?#",
         b"/\xff", b"/v1/me", b"http:///", b"/ /")
    )  # fmt: skip
    return b"%s %s %s\r\nHost: x\r\n\r\n" % (method, path, version)


@kind
def no_http(dice: Random, order: Order) -> bytes:
    """Other protocols and noise."""
    return dice.choice(
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + dice.randbytes(500),
         b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\r\n" * 500,
         b"\x10\x0c\x00\x04MQTT\x04\x02\x00<\x00\x00", b"AMQP\x00\x00\x09\x01", b"SSH-2.0-x\r\n",
         b"*1\r\n$4\r\nPING\r\n",
         dice.randbytes(dice.randint(1, 3_000)), b"\n", b"\0" * 100, b"GET", b"HELO x\r\nQUIT\r\n")
    )  # fmt: skip


@cache
def _bomb(times: int, again: bool) -> bytes:
    bomb = gzip.compress(b"0" * times)
    return gzip.compress(bomb) if again else bomb


@kind
def bombs(dice: Random, order: Order) -> bytes:
    """Compressed bodies that would be 50 MB, in codings known and unknown."""
    coding = dice.choice((b"gzip", b"deflate", b"br", b"zstd", b"gzip, gzip", b"x-gzip", b"GZIP ", b"\xff"))
    return request(dice, order, _bomb(50_000_000, again=dice.random() < 0.3), b"Content-Encoding: " + coding)


@kind
def broken_escapes(dice: Random, order: Order) -> bytes:
    """Percent signs that begin nothing, or begin no text."""
    part = dice.choice(
        (b"%", b"%f", b"%zz", b"%ff%fe", b"%00", b"%c0%af", b"%2e%2e%2f", b"%252e", b"%0d%0aX:y",
         b"%ed%a0%80", b"%u0041", b"%-1")
    )  # fmt: skip
    place = dice.choice(
        (b"/v1/datasets/%s", b"/v1/datasets?after=%s", b"/%s", b"/docs/%s", b"/problems/%s",
         b"/static/%s", b"/v1/datasets/x/readings?%s=1",
         b"/v1/logs?search=%s", b"/v1/services/%s", b"/v1/submissions/%s", b"/?q=%s", b"/datasets/%s",
         b"/login?next=%s")
    )  # fmt: skip
    return b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % (place % (part * dice.randint(1, 4)))


@kind
def paths_upwards(dice: Random, order: Order) -> bytes:
    """Out of the directory, by every spelling."""
    up = dice.choice(
        (
            b"../",
            b"..%2f",
            b"%2e%2e/",
            b"..\\",
            b"....//",
            b"..;/",
            b"./",
            b"//",
            b"..%5c",
            b"\x2e\x2e/",
            b"%252e%252e%252f",
        )
    )
    begin = dice.choice((b"/", b"/docs/", b"/static/", b"/static/swagger-ui/", b"/v1/", b"/problems/"))
    end = dice.choice((b"etc/passwd", b"posthouse.env", b"settings.py", b"", b"app.css/.", b"%00.css"))
    return b"GET %s%s%s HTTP/1.1\r\nHost: x\r\n\r\n" % (begin, up * dice.randint(1, 12), end)


@kind
def huge_queries(dice: Random, order: Order) -> bytes:
    """Thousands of parameters, each of them again, none of them known."""
    query = dice.choice(
        (b"a=b&" * 1_900, b"limit=1&" * 900, b"&" * 7_000, b"=" * 7_000, b"variables=" + b"n," * 3_500,
         b"after=" + b"A" * 7_000,
         b"start=" + b"9" * 5_000, b"limit=" + b"9" * 6_000, b";" * 7_000,
         b"start=2026-02-30T25:61:61Z&timezone=../../etc/passwd",
         b"timezone=" + b"A/" * 3_000, b"limit=\xd9\xa1", b"order=%00", b"a" * 8_000)
    )  # fmt: skip
    path = b"/v1/datasets/%s/readings" % order.dataset.encode() if dice.random() < 0.7 else b"/v1/datasets"
    return b"GET %s?%s HTTP/1.1\r\nHost: x\r\nX-API-Key: %s\r\n\r\n" % (path, query, order.key.encode())


@kind
def pipelines(dice: Random, order: Order) -> bytes:
    """Many requests at once, some of them wrong, one inside the body of another."""
    good = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    parts = [dice.choice((good, good, _any(dice, order))) for _ in range(dice.randint(2, 12))]
    if dice.random() < 0.3:
        parts.insert(0, request(dice, order, dice.choice(GOOD) + good, length=b"%d" % dice.randint(1, 30)))
    return b"".join(parts)


@kind
def half_requests(dice: Random, order: Order) -> bytes:
    """What was sent when the line broke."""
    whole = request(dice, order, dice.choice(GOOD))
    return whole[: dice.randrange(1, len(whole))]


@kind
def smuggled(dice: Random, order: Order) -> bytes:
    """Line ends, spaces and colons where two readers would disagree."""
    line = dice.choice(
        (b"Content-Length : 5", b" Content-Length: 5", b"Content-Length: 5\n",
         b"X: a\rContent-Length: 5", b"Transfer-Encoding\t: chunked",
         b"Host: y", b"Host:", b": x", b"X:a\r\n b", b"Content-Length:\x0b5", b"X\xff: y", b"(X): y",
         b"Content-Length: 5\r\n\tfoo", b"\r")
    )  # fmt: skip
    return request(dice, order, dice.choice(GOOD), line)


PLAIN = tuple(make for make in KINDS if make.__name__ not in ("pipelines", "bombs", "nesting"))
STRANGE = (
    b"\0",
    b"\r\n",
    b"\n",
    b" ",
    b"\xff",
    b"\xed\xa0\x80",
    b":",
    b"%",
    b'"',
    b"\t",
    b"",
    b",",
    b"9" * 30,
    b"[" * 900,
)


def _any(dice: Random, order: Order) -> bytes:
    return dice.choice(PLAIN)(dice, order)


def mutated(dice: Random, data: bytes) -> bytes:
    """The same with some bytes changed, put in, or taken out, anywhere."""
    changed = bytearray(data)
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(len(changed) + 1) if len(changed) < 2_000 else dice.randrange(2_000)
        changed[at : at + dice.randint(0, 3)] = dice.choice(STRANGE)
    return bytes(changed)


def stream(order: Order) -> list[tuple[str, bytes]]:
    """The requests of an order: each kind in turn, every second time with bytes changed."""
    dice = Random(order.seed)
    made = []
    for number in range(order.requests):
        make = KINDS[number % len(KINDS)]
        data = make(dice, order)
        if number // len(KINDS) % 2:
            data = mutated(dice, data)
        made.append((make.__name__, data))
    return made
