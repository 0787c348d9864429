"""Accounts beside the devices' own, processes beside the load, and what the instance's processes hold."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from tests.faults.scene import Scene
from tests.journeys.instance import OwnPosthouse

ROOT = Path(__file__).parents[2]
PASSWORD = "another long password"
NICE = 10


@dataclass(frozen=True)
class Stranger:
    """Somebody with an account and a dataset of their own."""

    url: str
    name: str
    password: str
    token: str
    dataset: str
    write_key: str

    async def send(self, lines: str) -> None:
        """Store readings, one JSON a line."""
        headers = {"X-API-Key": self.write_key, "Content-Type": "application/ndjson"}
        await _ask(f"{self.url}/v1/datasets/{self.dataset}/readings", headers, data=lines)


async def stranger(scene: Scene, name: str, roles: Iterable[str] = ()) -> Stranger:
    """Make an account by invitation, and a dataset with the variables `n` and `text`."""
    url = scene.posthouse.url
    mine = {"Authorization": f"Bearer {scene.token}"}
    invitation = await _ask(f"{url}/v1/invitations", mine, json={"roles": list(roles)})
    who = {"name": name, "password": PASSWORD}
    new = who | {"email": f"{name}@example.org", "invitation": invitation["secret"]}
    await _ask(f"{url}/v1/users", {}, json=new)
    token = (await _ask(f"{url}/v1/sessions", {}, json=who))["access_token"]
    made = {"name": "of a stranger", "variables": [{"tag": "n"}, {"tag": "text"}]}
    dataset = await _ask(f"{url}/v1/datasets", {"Authorization": f"Bearer {token}"}, json=made)
    return Stranger(url, name, PASSWORD, token, dataset["id"], dataset["write_key"])


async def _ask(url: str, headers: Mapping[str, str], **more: Any) -> Any:
    async with aiohttp.ClientSession() as client, client.post(url, headers=headers, **more) as answer:
        assert answer.status == 201, f"{url}: {answer.status} {await answer.text()}"
        return await answer.json()


async def beside(module: str, order: Mapping[str, Any]) -> Any:
    """Run a module of this directory as a process that gives way to the load; answers what it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        f"tests.faults.{module}",
        json.dumps(order),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        preexec_fn=lambda: os.nice(NICE),
    )
    try:
        said, _ = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        raise
    assert process.returncode == 0, f"{module} ended with {process.returncode}"
    return json.loads(said)


SERVERS = ("postgres", "rabbitmq", "redis", "epmd")


def python_processes(posthouse: OwnPosthouse) -> list[str]:
    """The names of the processes that are ours."""
    found = sorted(path.stem for path in (posthouse.directory / "run").glob("*.pid"))
    return [name for name in found if name not in SERVERS]


def pids(posthouse: OwnPosthouse) -> dict[str, int]:
    """Every process of the instance, those of others too."""
    return {path.stem: posthouse.pid(path.stem) for path in (posthouse.directory / "run").glob("*.pid")}


def memory(posthouse: OwnPosthouse, names: Iterable[str]) -> dict[str, float]:
    """How many MB of memory each of these processes holds now."""
    return {name: _resident(posthouse.pid(name)) for name in names}


def _resident(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))
