"""`account`: broker accounts for services written elsewhere, in any language."""

from __future__ import annotations

import argparse
import asyncio
import json
import re
from collections.abc import Coroutine, Mapping
from typing import TYPE_CHECKING, Any

import aiohttp

from deploy.cli.errors import Stopped

if TYPE_CHECKING:
    from deploy.broker import Account, Management

NAME = re.compile(r"[a-z][a-z0-9_]{0,39}\Z")
TOPIC = re.compile(r"[a-z][a-z0-9_]*\.[a-z0-9_]+\Z")
NEEDED = ("POSTHOUSE_AMQP_URL", "POSTHOUSE_MANAGEMENT_URL")


def add_parsers(commands: Any) -> None:
    """The sub-commands of `account`."""
    parser = commands.add_parser("account", help="broker accounts for services in other languages")
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    add = actions.add_parser("add", help="an account and its queues; again: a new password")
    add.add_argument("name", help="the service's name: the part of its topics before the dot")
    add.add_argument("--handles", action="append", default=[], metavar="TOPIC", help="may be repeated")
    add.add_argument("--publishes", action="append", default=[], metavar="TOPIC", help="may be repeated")
    add.add_argument("--json", action="store_true", help="for scripts")
    add.set_defaults(run=_add)
    show = actions.add_parser("list", help="the accounts made so")
    show.add_argument("--json", action="store_true", help="for scripts")
    show.set_defaults(run=_list)
    remove = actions.add_parser("remove", help="end an account; its queues stay, with what is in them")
    remove.add_argument("name")
    remove.set_defaults(run=_remove)


def _add(options: argparse.Namespace, environment: Mapping[str, str]) -> int:
    name, handles, publishes = options.name, options.handles, options.publishes
    _check(name, handles, publishes)
    account = _through(_made(environment, name, handles, publishes), environment)
    if options.json:
        told = {"name": account.name, "url": account.url, "queues": account.queues}
        print(json.dumps({**told, "handles": handles, "publishes": publishes}))
    else:
        print(_described(account, handles, publishes))
    return 0


def _check(name: str, handles: list[str], publishes: list[str]) -> None:
    if not NAME.match(name):
        raise Stopped(f"{name!r} is no name for a service: small letters, digits and _, a letter first.")
    for topic in (*handles, *publishes):
        if not TOPIC.match(topic) or not topic.startswith(f"{name}."):
            raise Stopped(f"{topic!r} is not {name}.<name>: a service handles and announces what it owns.")


def _described(account: Account, handles: list[str], publishes: list[str]) -> str:
    rows = {
        "address": account.url,
        "commands": account.name,
        "queries": f"{account.name}.queries",
        "handles": ", ".join(handles) or f"whatever is sent to {account.name}.*",
        "announces": ", ".join(publishes) or "nothing",
    }
    lines = [f"  {name:<10} {value}" for name, value in rows.items()]
    return "\n".join([*lines, "  The password is shown once; how to use it: docs/wire.md"])


async def _made(
    environment: Mapping[str, str], name: str, handles: list[str], publishes: list[str]
) -> Account:
    from deploy.broker import Management, accounts, add_account

    async with Management(environment) as management:
        taken = name in accounts() or (name in await management.names() and not await _ours(management, name))
    if taken:
        raise Stopped(f"The broker has an account {name!r} already that is not a service's made by this.")
    return await add_account(environment, name, handles, publishes)


def _list(options: argparse.Namespace, environment: Mapping[str, str]) -> int:
    names = _through(_names(environment), environment)
    if options.json:
        print(json.dumps(names))
    elif names:
        print("\n".join(names))
    return 0


async def _names(environment: Mapping[str, str]) -> list[str]:
    from deploy.broker import Management, accounts

    async with Management(environment) as management:
        others = [name for name in await management.names() if name not in accounts()]
        return [name for name in others if await _ours(management, name)]


def _remove(options: argparse.Namespace, environment: Mapping[str, str]) -> int:
    _through(_removed(environment, options.name), environment)
    print(f"{options.name} can no longer connect; its queues stay, with what is in them.")
    return 0


async def _removed(environment: Mapping[str, str], name: str) -> None:
    from deploy.broker import remove_account

    if name not in await _names(environment):
        raise Stopped(f"There is no account {name!r} that was made by `account add`.")
    await remove_account(environment, name)


async def _ours(management: Management, name: str) -> bool:
    """Whether an account was made by `add`: it has exactly the rights that gives."""
    from shared.bus.topology import service_rights

    if not NAME.match(name):
        return False
    wanted = service_rights(name)
    rights = (wanted.configure, wanted.write, wanted.read)
    found = await management.call("GET", f"/users/{name}/permissions")
    return any((one["configure"], one["write"], one["read"]) == rights for one in found)


def _through(work: Coroutine[Any, Any, Any], environment: Mapping[str, str]) -> Any:
    """Run it; what is missing or does not answer is said in one sentence."""
    missing = [name for name in NEEDED if not environment.get(name)]
    if missing:
        work.close()
        raise Stopped(
            f"{' and '.join(missing)} must be set; ./posthouse account does it while Posthouse runs."
        )
    from deploy.broker import BrokerNotPrepared

    try:
        return asyncio.run(work)
    except (aiohttp.ClientError, BrokerNotPrepared, OSError) as error:
        raise Stopped(f"RabbitMQ does not do it: {error}") from None
