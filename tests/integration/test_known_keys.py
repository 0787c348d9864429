"""Devices whose key nobody can be asked about: known before they are let in, revoked ones never."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable

import pytest
from redis.asyncio import Redis

from services.gateway import holders
from services.gateway.holders import Holders
from services.gateway.http.problems import Turned
from services.gateway.session import Callers
from shared.bus.ids import uuid7
from shared.bus.requests import Caller, Unavailable
from shared.contracts.base import Principal
from shared.contracts.ingest import CreateDataset, ResolveKey, unproved
from shared.vault import Vault
from tests.line import Line
from tests.unit.gateway.services import ALPHABET, Services

Gateway = Callable[[], Callers]


@pytest.fixture
def services(vault: Vault) -> Services:
    return Services(vault)


@pytest.fixture
async def gateway(services: Services, vault: Vault, redis: Redis) -> AsyncIterator[Gateway]:
    """Each call is a gateway started anew."""
    made: list[Holders] = []

    def make() -> Callers:
        made.append(Holders(redis))
        return Callers(services, vault, holders=made[-1])

    yield make
    for event in services.silent.values():
        event.set()
    for one in made:
        await one.close()


async def new_key(services: Services) -> tuple[str, bytes]:
    made = await services.ask(CreateDataset(name="Roof"), Caller(id=uuid7(), request_id="r"))
    _, key = services.keys[made.dataset.id]
    return key, services.vault.digest(key, "ingest.key")


async def known_key(services: Services, gateway: Callers, redis: Redis) -> tuple[str, bytes]:
    """A key that has been used at a gateway."""
    key, digest = await new_key(services)
    await gateway.identify({"X-API-Key": key})
    await heard(redis, digest, bool)
    return key, digest


async def ended_key(services: Services, gateway: Callers, redis: Redis) -> tuple[str, bytes]:
    """A key that has been used at a gateway, which heard of its end."""
    key, digest = await known_key(services, gateway, redis)
    gateway.drop_dataset_key([digest])
    await heard(redis, digest, lambda value: value == holders.ENDED)
    return key, digest


async def heard(redis: Redis, digest: bytes, what: Callable[[bytes | None], bool]) -> None:
    async with asyncio.timeout(10):
        while True:
            if what(await redis.get(f"key:{digest.hex()}")):
                return
            await asyncio.sleep(0.01)


def nobody_answers(services: Services) -> None:
    services.silent[ResolveKey.topic] = asyncio.Event()


async def writes(gateway: Callers, key: str) -> Principal:
    return await gateway.identify({"X-API-Key": key}, proves_later=True)


async def test_a_gateway_started_anew_lets_in_who_was_known_for_the_service_to_prove(
    services: Services, gateway: Gateway, redis: Redis
) -> None:
    first = gateway()
    key, digest = await known_key(services, first, redis)
    proved = await first.identify({"X-API-Key": key})
    nobody_answers(services)
    anew = gateway()
    let_in = await writes(anew, key)
    assert let_in.scopes == (unproved(digest),)
    same = ("kind", "id", "via", "project")
    assert [getattr(let_in, name) for name in same] == [getattr(proved, name) for name in same]
    assert anew.at_once({"X-API-Key": key}) is None


async def test_only_a_write_is_let_in_so(services: Services, gateway: Gateway, redis: Redis) -> None:
    key, _ = await known_key(services, gateway(), redis)
    services.failing[ResolveKey.topic] = Unavailable("away")
    with pytest.raises(Unavailable):
        await gateway().identify({"X-API-Key": key})
    assert (await writes(gateway(), key)).kind == "key"


async def test_a_read_key_is_not_let_in_in_place_of_a_writer(
    services: Services, gateway: Gateway, redis: Redis
) -> None:
    made = await services.ask(CreateDataset(name="Roof"), Caller(id=uuid7(), request_id="r"))
    key, _ = services.keys[made.dataset.id]
    await gateway().identify({"X-API-Key": key})
    await heard(redis, services.vault.digest(key, "ingest.key"), bool)
    services.failing[ResolveKey.topic] = Unavailable("away")
    with pytest.raises(Unavailable):
        await writes(gateway(), key)


async def test_a_revoked_key_is_refused_by_gateways_that_never_heard_of_it(
    services: Services, gateway: Gateway, redis: Redis
) -> None:
    first = gateway()
    key, _ = await ended_key(services, first, redis)
    nobody_answers(services)
    for anybody in (first, gateway()):
        with pytest.raises(Turned) as refused:
            await writes(anybody, key)
        assert refused.value.status == 401


async def test_what_redis_could_not_hear_of_a_revocation_it_hears_later(
    services: Services, gateway: Gateway, redis: Redis, line: Line
) -> None:
    first = gateway()
    key, digest = await known_key(services, first, redis)
    nobody_answers(services)
    line.freeze()
    first.drop_dataset_key([digest])
    with pytest.raises(Turned):
        await writes(first, key)
    line.thaw()
    await heard(redis, digest, lambda value: value == holders.ENDED)
    with pytest.raises(Turned):
        await writes(gateway(), key)


async def test_a_key_that_was_never_known_is_neither_let_in_nor_called_wrong(
    services: Services, gateway: Gateway, redis: Redis
) -> None:
    key, _ = await new_key(services)
    services.failing[ResolveKey.topic] = Unavailable("away")
    with pytest.raises(Unavailable):
        await writes(gateway(), key)


async def test_without_redis_nobody_is_let_in_by_what_was_known(
    services: Services, gateway: Gateway, redis: Redis, line: Line
) -> None:
    key, _ = await known_key(services, gateway(), redis)
    services.failing[ResolveKey.topic] = Unavailable("away")
    line.freeze()
    with pytest.raises(Unavailable):
        await writes(gateway(), key)
    line.thaw()


async def test_invented_keys_leave_nothing_in_redis(
    services: Services, gateway: Gateway, redis: Redis
) -> None:
    one = gateway()
    invented = ["".join(secrets.choice(ALPHABET) for _ in range(16)) for _ in range(5)]
    for key in invented:
        with pytest.raises(Turned):
            await writes(one, key)
    await known_key(services, one, redis)  # told after them
    digests = [services.vault.digest(key, "ingest.key") for key in invented]
    assert await redis.exists(*(f"key:{digest.hex()}" for digest in digests)) == 0


async def test_a_key_whose_dataset_came_back_is_known_again(
    services: Services, gateway: Gateway, redis: Redis
) -> None:
    first = gateway()
    key, digest = await ended_key(services, first, redis)
    await first.identify({"X-API-Key": key})
    await heard(redis, digest, bool)
    nobody_answers(services)
    assert (await writes(gateway(), key)).scopes == (unproved(digest),)


async def test_whoever_comes_after_a_revocation_is_not_told_what_was_asked_before(
    services: Services, gateway: Gateway
) -> None:
    key, digest = await new_key(services)
    one = gateway()
    nobody_answers(services)
    before = asyncio.create_task(one.identify({"X-API-Key": key}))
    await asyncio.sleep(0)
    await asyncio.sleep(0)  # now it is asked
    one.drop_dataset_key([digest])
    after = asyncio.create_task(one.identify({"X-API-Key": key}))
    services.silent.pop(ResolveKey.topic).set()
    await asyncio.gather(before, after)
    assert sum(isinstance(message, ResolveKey) for message, _ in services.asked) == 2
