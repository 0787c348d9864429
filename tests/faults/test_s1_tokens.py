"""S1: of ten thousand forged access tokens none is accepted, and every answer is 401."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from shared.vault import Vault
from tests.faults.town import samples
from tests.unit.gateway.door import House, open_house

pytestmark = pytest.mark.timeout(300)

AT_ONCE = 4
HOUR = 3600
Forge = Callable[["Forger"], str]


class Forger:
    """Knows one good token, the public key and everything but the private key."""

    def __init__(self, house: House, chance: random.Random) -> None:
        self.services = house.services
        self.chance = chance
        self.now = int(time.time())
        self.good = self.services.token()
        self.header, self.claims, self.signature = (_read(part) for part in self.good.split("."))
        public = self.services.signing.public_key()
        self.public_raw = public.public_bytes_raw()
        self.public_pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        self.public_ssh = public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        self.own = Ed25519PrivateKey.generate()
        self.own_rsa = rsa.generate_private_key(65537, 2048)
        self.own_ec = ec.generate_private_key(ec.SECP256R1())

    def signed_by_us(self, **changes: Any) -> str:
        """What the real key would sign if it were asked to; `typ` and `kid` belong to the header."""
        header, claims = json.loads(self.header), json.loads(self.claims)
        for name, value in changes.items():
            part = header if name in ("typ", "kid") else claims
            part[name] = value
            if value is None:
                del part[name]
        body = ".".join(_write(json.dumps(part).encode()) for part in (header, claims))
        return f"{body}.{_write(self.services.signing.sign(body.encode()))}"

    def signed_elsewhere(self, key: Any, algorithm: str, **header: Any) -> str:
        """The good claims under another key."""
        head = json.loads(self.header) | {"alg": algorithm} | header
        return jwt.encode(json.loads(self.claims), key, algorithm, headers=head)

    def joined(self, header: Any, claims: Any, signature: bytes) -> str:
        """Any three parts."""
        parts = (part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, claims))
        return ".".join(_write(part) for part in (*parts, signature))


def _read(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def _write(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unsigned(forger: Forger) -> str:
    name = forger.chance.choice(["none", "None", "NONE", "nOnE", "", None, 0, ["none"], "EdDSA"])
    header = json.loads(forger.header) | {"alg": name}
    signature = forger.chance.choice([b"", b"\0", forger.chance.randbytes(64)])
    return forger.joined(header, json.loads(forger.claims), signature)


def confused(forger: Forger) -> str:
    """Another kind of key for ours."""
    ways: list[tuple[Any, str]] = [
        (forger.own_rsa, forger.chance.choice(["RS256", "RS512", "PS256"])),
        (forger.own_ec, "ES256"),
    ]
    key, algorithm = forger.chance.choice(ways)
    return forger.signed_elsewhere(key, algorithm)


def confused_with_a_secret(forger: Forger) -> str:
    """The public key, as anybody may write it, taken for a shared secret."""
    pem, raw = forger.public_pem, forger.public_raw
    secret = forger.chance.choice(
        [pem, pem.strip(), forger.public_ssh, raw, raw.hex().encode(), b"", bytes(32)]
    )
    algorithm, digest = forger.chance.choice([("HS256", "sha256"), ("HS384", "sha384"), ("HS512", "sha512")])
    head = _write(json.dumps(json.loads(forger.header) | {"alg": algorithm}).encode())
    body = f"{head}.{_write(forger.claims)}"
    return f"{body}.{_write(hmac.digest(secret, body.encode(), digest))}"


def of_a_foreign_key(forger: Forger) -> str:
    header = forger.chance.choice(
        [
            {},
            {"kid": "k2"},
            {"kid": "../../../dev/null"},
            {"kid": "' OR 1=1 --"},
            {"kid": ""},
            {"kid": "k1\0"},
            {"jku": "https://evil.test/jwks.json"},
            {"x5u": "https://evil.test/cert.pem", "kid": "k9"},
            {
                "jwk": {
                    "kty": "OKP",
                    "crv": "Ed25519",
                    "x": _write(forger.own.public_key().public_bytes_raw()),
                }
            },
            {"x5c": [_write(forger.own.public_key().public_bytes_raw())]},
        ]
    )
    return forger.signed_elsewhere(forger.own, "EdDSA", **header)


def with_wrong_times(forger: Forger) -> str:
    now, chance = forger.now, forger.chance
    past = now - chance.randrange(10, 10 * HOUR)
    future = now + chance.randrange(HOUR, 10 * HOUR)
    return forger.signed_by_us(
        **chance.choice(
            [
                {"exp": past},
                {"exp": past, "iat": past - HOUR},
                {"exp": None},
                {"exp": "never"},
                {"exp": [future]},
                {"exp": {}},
                {"exp": -future},
                {"exp": 0},
                {"nbf": future},
                {"nbf": "soon"},
                {"iat": future, "exp": future + HOUR},
                {"iat": None},
                {"iat": "now"},
            ]
        )
    )


def with_wrong_claims(forger: Forger) -> str:
    return forger.signed_by_us(
        **forger.chance.choice(
            [
                {"aud": "other"},
                {"aud": None},
                {"aud": ["other"]},
                {"aud": {}},
                {"aud": "posthouse "},
                {"iss": "other"},
                {"iss": None},
                {"iss": ["posthouse"]},
                {"sub": None},
                {"sub": 7},
                {"jti": None},
                {"jti": 7},
                {"sid": 7},
                {"roles": "administrator"},
                {"roles": [["administrator"]]},
                {"project": ["default"]},
                {"typ": "JWT"},
                {"typ": "rt+jwt"},
                {"typ": ""},
                {"typ": None},
                {"typ": ["at+jwt"]},
                {"kid": "k2"},
                {"kid": ["k1"]},
            ]
        )
    )


def with_a_bit_flipped(forger: Forger) -> str:
    """Anywhere in the header, the claims or the signature."""
    parts = [bytearray(part) for part in (forger.header, forger.claims, forger.signature)]
    part = forger.chance.choice(parts)
    part[forger.chance.randrange(len(part))] ^= 1 << forger.chance.randrange(8)
    return ".".join(_write(bytes(part)) for part in parts)


def with_other_claims_under_the_same_signature(forger: Forger) -> str:
    changed = forger.chance.choice(
        [{"sub": "u2"}, {"roles": ["administrator", "x"]}, {"exp": forger.now + 10 * HOUR}, {"project": "p"}]
    )
    return forger.joined(forger.header, json.loads(forger.claims) | changed, forger.signature)


def out_of_shape(forger: Forger) -> str:
    good, chance = forger.good, forger.chance
    head, body, signature = good.split(".")
    cut = chance.randrange(1, len(good))
    return chance.choice(
        [
            good[:cut],
            good[: cut // 2] + good[cut // 2 + 1 :],
            f"{head}.{body}",
            f"{head}.{body}.",
            f".{body}.{signature}",
            f"{head}..{signature}",
            f"{good}.{signature}",
            f"{good}A{chance.randrange(1_000)}AA",
            f"{body}.{head}.{signature}",
            f"{head}.{body}.{signature[::-1]}",
            "." * chance.randrange(1, 9),
            _write(b"[" * chance.randrange(10, 900)) + f".{body}.{signature}",
            f"{_write(b'null')}.{body}.{signature}",
            f"{head}.{_write(b'[]')}.{signature}",
        ]
    )


FORGERIES: tuple[Forge, ...] = (
    unsigned,
    confused,
    confused_with_a_secret,
    of_a_foreign_key,
    with_wrong_times,
    with_wrong_claims,
    with_a_bit_flipped,
    with_other_claims_under_the_same_signature,
    out_of_shape,
)


@pytest.fixture(scope="module")
async def house(vault: Vault) -> AsyncIterator[House]:
    async with open_house(vault, rate_anonymous="0") as opened:
        yield opened


def forged(house: House, count: int, seed: int) -> Iterator[tuple[str, str]]:
    """As many of each kind, mixed."""
    forger = Forger(house, random.Random(seed))
    for number in range(count):
        forge = FORGERIES[number % len(FORGERIES)]
        token = forge(forger)
        assert token != forger.good
        yield forge.__name__, token


async def test_no_forged_token_is_accepted(house: House) -> None:
    count = samples(2_000)
    seed = random.SystemRandom().randrange(1 << 32)
    waiting = list(forged(house, count, seed))
    good = house.services.token()
    statuses: Counter[int] = Counter()
    accepted: Counter[str] = Counter()
    refused_good = 0
    times: list[float] = []

    async def attack() -> None:
        nonlocal refused_good
        while waiting:
            kind, token = waiting.pop()
            began = time.perf_counter()
            status = await status_of(house, token)
            times.append(time.perf_counter() - began)
            statuses[status] += 1
            accepted[kind] += status < 400
            if len(waiting) % 50 == 0:
                refused_good += await status_of(house, good) != 200

    await asyncio.gather(*(attack() for _ in range(AT_ONCE)))
    times.sort()
    print(
        f"S1: {count} forgeries of {len(FORGERIES)} kinds (seed {seed}), accepted {accepted.total()},"
        f" answers {dict(statuses)}, p99 {times[int(len(times) * 0.99)] * 1000:.1f} ms, {AT_ONCE} at once,"
        f" good ones refused {refused_good}"
    )
    assert +accepted == Counter()
    assert set(statuses) == {401}
    assert refused_good == 0


async def status_of(house: House, token: str) -> int:
    """What a request with this token is answered."""
    head = (
        f"GET /v1/datasets HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
    )
    return (await house.raw(head.encode())).status


async def test_a_careless_receiver_accepts_some_of_them(house: House) -> None:
    """The same tokens without the rules of RFC 8725, so that the figure above means something."""
    public = house.services.signing.public_key()
    kinds: Counter[str] = Counter()
    for kind, token in forged(house, len(FORGERIES) * 60, seed=1):
        try:
            jwt.decode(
                token, public, algorithms=["EdDSA"], options={"verify_aud": False, "verify_nbf": False}
            )
        except (jwt.InvalidTokenError, ValueError, RecursionError):
            continue
        kinds[kind] += 1
    print(f"S1 without the rules: accepted {kinds.total()} of {len(FORGERIES) * 60}, {dict(kinds)}")
    assert kinds.total() > 0
