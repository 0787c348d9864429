"""A backup taken from a busy instance fills a copy of the checkout elsewhere, which goes on from there."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aio_pika
import aiohttp
import pytest

from deploy import archive
from tests.journeys.conftest import ROOT, START_SECONDS
from tests.journeys.instance import OwnPosthouse, free_port, until

pytestmark = pytest.mark.timeout(300)

WRITERS = 4
NOT_COPIED = (".git", ".local", ".venv", "posthouse.env", "node_modules", "__pycache__", ".*_cache", "*.pyc")
IMPORTED = "when,temp\n" + "\n".join(f"2026-01-{day:02},{day}.50" for day in range(1, 31))
FORM = ("--dataset", "imported", "--time-column", "when", "--time-format", "%Y-%m-%d", "--timezone", "UTC")
SUMS = """
SELECT d.id::text, count(r.entry), sum(r.numbers[1]), max(r.entry), max(c.last_entry), max(c.stored)
  FROM ingest.dataset d JOIN ingest.dataset_counter c ON c.dataset = d.number
  LEFT JOIN ingest.reading r ON r.dataset = d.number
 WHERE d.deleted_at IS NULL GROUP BY 1 ORDER BY 1
"""


@dataclass(frozen=True)
class Checkout(OwnPosthouse):
    """An instance in a checkout of its own, as on another machine."""

    root: Path = ROOT

    @property
    def environment(self) -> dict[str, str]:
        """Nothing but what a user has."""
        return {name: value for name, value in os.environ.items() if not name.startswith("POSTHOUSE_")}

    def run(self, *arguments: str, seconds: float = 60, **more: str) -> subprocess.CompletedProcess[str]:
        """`./posthouse <arguments>` there."""
        return subprocess.run(
            [self.root / "posthouse", *arguments],
            env=self.environment | more,
            cwd=self.root,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    async def started(self) -> None:
        """`./posthouse up`, at a port that is free now."""
        port = str(free_port())
        up = await asyncio.to_thread(self.run, "up", "--detach", seconds=START_SECONDS, POSTHOUSE_PORT=port)
        assert up.returncode == 0, up.stdout + up.stderr

    def begin(self, *arguments: str) -> subprocess.Popen[bytes]:
        """The same, not waited for."""
        return subprocess.Popen(
            [self.root / "posthouse", *arguments],
            env=self.environment,
            cwd=self.root,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


def copied_checkout(to: Path) -> Checkout:
    """The files of this checkout, and what an installation would put beside them."""
    shutil.copytree(ROOT, to, ignore=shutil.ignore_patterns(*NOT_COPIED))
    broker = Path(".local") / "servers" / "rabbitmq"
    if (ROOT / broker).exists():
        shutil.copytree(ROOT / broker, to / broker, symlinks=True)
    for directory in (".venv/bin", ".venv"):
        (to / directory).mkdir(parents=True, exist_ok=True)
    (to / ".venv/bin/python").symlink_to((ROOT / ".venv/bin/python").resolve())
    (to / ".venv/lib").symlink_to(ROOT / ".venv/lib")
    shutil.copy2(ROOT / ".venv/pyvenv.cfg", to / ".venv/pyvenv.cfg")
    stamp = json.loads((ROOT / ".venv/posthouse-installed.json").read_text())
    (to / ".venv/posthouse-installed.json").write_text(json.dumps(stamp | {"place": str(to)}))
    return Checkout(to / ".local", to)


@dataclass
class Load:
    """Writers that never stop, and what each was answered."""

    posthouse: OwnPosthouse
    dataset: str
    token: str
    answered: dict[int, tuple[float, int]]
    """Entry: when its answer came, and the value that was sent."""

    async def write(self, http: aiohttp.ClientSession, sent: list[int]) -> None:
        """One reading after the other; the value says which it is."""
        while True:
            sent[0] += 1
            value = sent[0]
            path = f"{self.posthouse.url}/v1/datasets/{self.dataset}/readings"
            async with http.post(path, json={"values": {"temp": value}}) as answer:
                assert answer.status == 201, await answer.text()
                [entry] = (await answer.json())["entries"]
            self.answered[entry["entry"]] = time.time(), value


@asynccontextmanager
async def busy(posthouse: OwnPosthouse, dataset: str, token: str) -> AsyncIterator[Load]:
    load, sent = Load(posthouse, dataset, token, {}), [0]
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as http:
        writers = [asyncio.create_task(load.write(http, sent)) for _ in range(WRITERS)]
        try:
            yield load
        finally:
            failed = [one.exception() for one in writers if one.done() and not one.cancelled()]
            for one in writers:
                one.cancel()
            await asyncio.gather(*writers, return_exceptions=True)
    assert not failed, failed


def ask(posthouse: OwnPosthouse, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    """Status and JSON or text: POST with a body, else GET."""
    data = None if body is None else json.dumps(body).encode()
    head = {"Content-Type": "application/json"} if data else {}
    head |= {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(posthouse.url + path, data, head)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            text, status, kind = answer.read().decode(), answer.status, answer.headers["Content-Type"]
    except urllib.error.HTTPError as error:
        with error:
            text, status, kind = error.read().decode(), error.code, error.headers["Content-Type"]
    return status, json.loads(text) if "json" in kind else text


@pytest.fixture(scope="module")
def source(posthouse: Any) -> OwnPosthouse:
    """The instance of all journeys: a backup changes nothing in it."""
    return OwnPosthouse(posthouse.directory)


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Any:
    checkout = copied_checkout(tmp_path_factory.mktemp("elsewhere") / "posthouse-of-another")
    yield checkout
    assert checkout.run("down", seconds=START_SECONDS).returncode == 0


@dataclass
class Before:
    """What was done at the source before its backup was taken, and what it was answered."""

    made: dict[str, Any]
    person: dict[str, str]
    me: dict[str, str]
    body: list[dict[str, Any]]
    keyed: tuple[int, Any]
    submission: str
    foreign: dict[str, Any]
    csv: Path
    refresh_token: str

    @property
    def path(self) -> str:
        """Of the dataset that is written to."""
        return f"/v1/datasets/{self.made['id']}"

    @property
    def key(self) -> dict[str, str]:
        """Of the write that is repeated."""
        return self.me | {"Idempotency_Key": f"before-{self.made['id']}"}


def named(person: dict[str, str]) -> dict[str, str]:
    """As one signs in."""
    return {"name": person["POSTHOUSE_NAME"], "password": person["POSTHOUSE_PASSWORD"]}


def used(source: OwnPosthouse, person: dict[str, str], token: str, csv: Path) -> Before:
    """A dataset, an import, a write with a key, one for which nobody waits, a service of somebody else."""
    csv.write_text(IMPORTED)
    assert source.run("import", str(csv), *FORM, **person).returncode == 0
    added = json.loads(source.run("account", "add", "kiosk", "--handles", "kiosk.show", "--json").stdout)
    made = source.ask("/v1/datasets", {"name": "busy", "variables": [{"tag": "temp"}]}, token)
    body = [{"at": "2026-05-05T00:00:00Z", "values": {"temp": -1}}]
    me = {"Authorization": f"Bearer {token}"}
    refresh = ask(source, "/v1/sessions", named(person))[1]["refresh_token"]
    before = Before(made, person, me, body, (0, None), "", added, csv, refresh)
    before.keyed = ask(source, f"{before.path}/readings", body, **before.key)
    queued = ask(source, f"{before.path}/readings", body, **before.me, Prefer="respond-async")
    before.submission = queued[1]["submission"]
    return before


async def test_a_backup_of_a_busy_instance_goes_on_elsewhere(
    source: OwnPosthouse, person: dict[str, str], token: str, elsewhere: Checkout, tmp_path: Path
) -> None:
    file = tmp_path / "kept.backup"
    before = used(source, person, token, tmp_path / "in.csv")
    async with busy(source, before.made["id"], token) as load:
        await until(lambda: len(load.answered) > 50, "readings are answered")
        began = time.time()
        done = await asyncio.to_thread(source.run, "backup", str(file), seconds=120)
        assert done.returncode == 0, done.stdout + done.stderr
        ended = len(load.answered)
        await until(lambda: len(load.answered) > ended + 20, "writing went on")
    assert "IT HOLDS THE SECRET KEY" in done.stdout
    assert file.stat().st_mode & 0o777 == 0o600
    assert source.run("account", "remove", "kiosk").returncode == 0

    await refused_when_damaged(elsewhere, file)
    await interrupted_and_done_again(elsewhere, file)
    await elsewhere.started()
    assert elsewhere.url != source.url
    last = await nothing_is_missing(elsewhere, before, load, began)
    await the_rest_is_the_same(elsewhere, source, before, file)
    everybody_is_known(elsewhere, before)
    keys_open_and_numbers_go_on(elsewhere, before, last)
    imports_go_on(elsewhere, before)
    assert await waiting_in(elsewhere, before.foreign["queues"][0], "left here") == 1
    doctor = elsewhere.run("doctor")
    assert doctor.returncode == 0, doctor.stdout
    await moved_with_what_waits(elsewhere, before.foreign["queues"][0])
    data_is_not_overwritten(elsewhere, file)


async def nothing_is_missing(elsewhere: Checkout, before: Before, load: Load, began: float) -> int:
    """What was answered before the backup began is there, in its place, without holes; the last entry."""
    rows = await elsewhere.sql(
        "SELECT r.entry, r.numbers[1] AS value FROM ingest.reading r JOIN ingest.dataset d"
        " ON d.number = r.dataset WHERE d.id = $1",
        before.made["id"],
    )
    found = {row["entry"]: row["value"] for row in rows}
    assert sorted(found) == list(range(1, len(rows) + 1))
    assert all(entry in found for entry, (at, _) in load.answered.items() if at < began)
    assert all(found[entry] == value for entry, (_, value) in load.answered.items() if entry in found)
    assert len(rows) < max(load.answered)  # what came later is not in it
    return len(rows)


async def the_rest_is_the_same(elsewhere: Checkout, source: OwnPosthouse, before: Before, file: Path) -> None:
    """Accounts as the manifest counts them; counts and sums of every dataset nobody wrote to."""
    with archive.opened(file) as kept:
        tables = kept.manifest["tables"]
    [row] = await elsewhere.sql("SELECT count(*) AS accounts FROM auth.account")
    assert row["accounts"] == tables["auth.account"]["rows"] > 0
    here = {row["id"]: tuple(row) for row in await source.sql(SUMS)}
    there = {row["id"]: tuple(row) for row in await elsewhere.sql(SUMS)}
    assert len(there) > 1
    del there[before.made["id"]]
    assert {name: here[name] for name in there} == there


def everybody_is_known(elsewhere: Checkout, before: Before) -> None:
    """By password, by the token they have, by the key of a repeat, by what they were promised."""
    status, session = ask(elsewhere, "/v1/sessions", named(before.person))
    assert (status // 100, bool(session["access_token"])) == (2, True)
    assert ask(elsewhere, before.path, **before.me)[0] == 200
    status, renewed = ask(elsewhere, "/v1/sessions/refresh", {"refresh_token": before.refresh_token})
    assert (status // 100, bool(renewed["access_token"])) == (2, True)
    assert ask(elsewhere, f"{before.path}/readings", before.body, **before.key) == before.keyed
    promised = ask(elsewhere, f"/v1/submissions/{before.submission}", **before.me)[1]
    assert promised["state"] == "stored"


def keys_open_and_numbers_go_on(elsewhere: Checkout, before: Before, last: int) -> None:
    readings = f"{before.path}/readings"
    written = ask(elsewhere, readings, {"values": {"temp": 0}}, X_API_Key=before.made["write_key"])
    assert written[1]["entries"][0]["entry"] == last + 1
    read = ask(elsewhere, f"{readings}/{last + 1}", X_API_Key=before.made["read_key"])
    assert read[1]["values"] == {"temp": 0}


def imports_go_on(elsewhere: Checkout, before: Before) -> None:
    again = elsewhere.run("import", str(before.csv), *FORM, **before.person, POSTHOUSE_URL=elsewhere.url)
    assert "0 readings stored" in again.stderr
    copy = elsewhere.run("export", *FORM, **before.person, POSTHOUSE_URL=elsewhere.url)
    assert copy.stdout == IMPORTED


async def refused_when_damaged(elsewhere: Checkout, file: Path) -> None:
    """Before anything is touched."""
    damaged = file.with_suffix(".damaged")
    whole = bytearray(file.read_bytes())
    whole[len(whole) // 3] ^= 1
    damaged.write_bytes(whole)
    done = await asyncio.to_thread(elsewhere.run, "restore", str(damaged))
    assert done.returncode == 1
    assert "damaged" in done.stderr
    assert not (elsewhere.root / "posthouse.env").exists()
    looked = await asyncio.to_thread(elsewhere.run, "restore", "--check", str(file))
    assert (looked.returncode, "The file is whole" in looked.stdout) == (0, True), looked.stderr
    assert not (elsewhere.directory / "data").exists()


async def interrupted_and_done_again(elsewhere: Checkout, file: Path) -> None:
    """A restore that is killed leaves nothing that would start."""
    killed = elsewhere.begin("restore", str(file))
    await until(lambda: (elsewhere.directory / "data.restoring" / "postgres").exists(), "it restores")
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    up = await asyncio.to_thread(elsewhere.run, "up", "--detach", seconds=START_SECONDS)
    assert up.returncode == 1
    assert "A restore was interrupted" in up.stdout + up.stderr
    done = await asyncio.to_thread(elsewhere.run, "restore", str(file), seconds=START_SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (elsewhere.root / "posthouse.env").stat().st_mode & 0o777 == 0o600


async def waiting_in(elsewhere: Checkout, queue: str, text: str) -> int:
    """Leave a message in a queue nobody takes from; how many there are now."""
    url = elsewhere.addresses["POSTHOUSE_AMQP_URL"]
    async with await aio_pika.connect(url, timeout=10) as connection:
        channel = await connection.channel(publisher_confirms=True)
        message = aio_pika.Message(text.encode(), delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        await channel.default_exchange.publish(message, routing_key=queue)
    return await elsewhere.depth(queue)


async def moved_with_what_waits(elsewhere: Checkout, queue: str) -> None:
    """The data at another place is the same data, messages included."""
    file = elsewhere.directory.parent.parent / "second.backup"
    done = await asyncio.to_thread(elsewhere.run, "backup", str(file), seconds=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"NOT CONTAINED are messages that wait in queues: 1 in {queue}." in done.stdout
    assert (await asyncio.to_thread(elsewhere.run, "down", seconds=START_SECONDS)).returncode == 0
    stopped = await asyncio.to_thread(elsewhere.run, "backup", str(file), "--force")
    assert (stopped.returncode, "a backup is taken while Posthouse runs" in stopped.stderr) == (2, True)
    place = elsewhere.root / "data-of-another-disk"
    (elsewhere.directory / "data").rename(place)
    settings = elsewhere.root / "posthouse.env"
    settings.write_text(f"{settings.read_text()}POSTHOUSE_DATA={place}\n")
    await elsewhere.started()
    assert await elsewhere.depth(queue) == 1
    assert elsewhere.run("doctor").returncode == 0


def data_is_not_overwritten(elsewhere: Checkout, file: Path) -> None:
    """Neither while it runs nor later, unless that is asked for; then it stays beside."""
    running = elsewhere.run("restore", str(file), "--replace")
    assert (running.returncode, "./posthouse down first" in running.stderr) == (1, True)
    assert elsewhere.run("down", seconds=START_SECONDS).returncode == 0
    there = elsewhere.run("restore", str(file))
    assert (there.returncode, "There is data in" in there.stderr) == (1, True)
    mark = elsewhere.root / "data-of-another-disk" / "postgres" / "PG_VERSION"
    before = hashlib.sha256(mark.read_bytes()).digest()
    done = elsewhere.run("restore", str(file), "--replace", seconds=START_SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    [aside] = elsewhere.root.glob("data-of-another-disk.before-*")
    assert hashlib.sha256((aside / "postgres" / "PG_VERSION").read_bytes()).digest() == before
    assert str(aside) in done.stdout


def test_a_backup_never_replaces_a_file_unasked(source: OwnPosthouse, tmp_path: Path) -> None:
    file = tmp_path / "kept.backup"
    file.write_text("mine")
    done = source.run("backup", str(file))
    assert (done.returncode, "is there already" in done.stderr, file.read_text()) == (2, True, "mine")
    assert source.run("backup", str(tmp_path / "no" / "directory")).returncode == 2
    assert source.run("backup", str(file), "--force").returncode == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept.backup"]


def test_a_backup_without_the_key_does_not_have_it(
    source: OwnPosthouse, elsewhere: Checkout, tmp_path: Path
) -> None:
    file = tmp_path / "kept.backup"
    assert source.run("backup", str(file), "--without-key", "--compression", "0").returncode == 0
    assert source.secret_key.encode() not in file.read_bytes()
    other = Checkout(tmp_path / "other", elsewhere.root)
    given = {"POSTHOUSE_LOCAL": str(other.directory)}
    done = other.run("restore", str(file), **given)
    assert (done.returncode, "The secret key is not in the backup" in done.stderr) == (1, True)
    done = other.run("restore", str(file), **given, POSTHOUSE_SECRET_KEY=source.secret_key)
    assert done.returncode == 0, done.stdout + done.stderr
    assert source.secret_key in (other.directory / "posthouse.env").read_text()
