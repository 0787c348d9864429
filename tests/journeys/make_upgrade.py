"""`python -m tests.journeys.make_upgrade`: what test_upgrade.py opens in later versions, made by this one."""

from __future__ import annotations

import asyncio
import json
import lzma
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

from deploy.local.instance import ROOT
from deploy.local.services import commit
from tests.journeys.instance import NAMED, OwnPosthouse, make_dataset, own_posthouse, sign_up, until_it_is

KEPT = Path(__file__).parent / "upgrade"
FORM = ("--dataset", "imported", "--time-column", "when", "--time-format", "%Y-%m-%d", "--timezone", "UTC")


class Filler:
    """Writes readings of every kind into an instance, and writes down what it answers."""

    def __init__(self, posthouse: OwnPosthouse) -> None:
        self._posthouse = posthouse
        self._me = sign_up(posthouse)

    def ask(
        self, method: str, path: str, body: Any = None, kind: str = "application/json", **more: str
    ) -> Any:
        """One request of the owner; text of what is not JSON."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": kind, "Authorization": f"Bearer {self._me}", **more}
        request = urllib.request.Request(self._posthouse.url + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            text = answer.read().decode()
        return json.loads(text) if "json" in answer.headers.get("Content-Type", "") else text

    def fill(self, place: Path) -> str:
        """Datasets, one of them deleted; answers which."""
        made = {
            name: f"/v1/datasets/{make_dataset(self._posthouse, self._me, name, *tags)['id']}"
            for name, tags in {
                "every kind of value": ("whole", "number", "text", "mixed"),
                "years": ("temp", "old"),
                "cleared": ("v",),
                "deleted": ("v",),
            }.items()
        }
        rows = [self._row(n) for n in range(500)]
        self.ask("POST", f"{made['every kind of value']}/readings", rows)
        self.ask("POST", f"{made['every kind of value']}/readings", rows[:8])
        lines = [f"{2000 + n // 12}-{1 + n % 12:02}-03T04:05:06Z,{n}.{n % 10},{n}" for n in range(312)]
        text = "\n".join(["at,temp,old", *lines]).encode()
        self.ask("POST", f"{made['years']}/readings", text, "text/csv")
        self.ask("PATCH", made["years"], {"variables": [{"tag": "temp", "unit": "degC"}]})
        self.ask("POST", f"{made['years']}/keys/write")
        for name in ("cleared", "deleted"):
            self.ask("POST", f"{made[name]}/readings", [{"at": "2026-02-01T00:00:00Z", "values": {"v": 1}}])
        self.ask("DELETE", f"{made['cleared']}/readings?all=true")
        self.ask("DELETE", made["deleted"])
        (place / "in.csv").write_text(
            "when,temp\n" + "\n".join(f"2026-03-{d:02},{d}.50" for d in range(1, 31))
        )
        who = {f"POSTHOUSE_{name.upper()}": value for name, value in NAMED.items()}
        assert self._posthouse.run("import", str(place / "in.csv"), *FORM, **who).returncode == 0
        return made["deleted"].rpartition("/")[2]

    def _row(self, n: int) -> dict[str, Any]:
        mixed = (None, 2**53 + 1 + n, "22.50", 1e-9 * n, "-0")[n % 5]
        text = f't{n},"é"\n line'
        row: dict[str, Any] = {
            "at": f"2026-{1 + n % 10:02}-{1 + n % 28:02}T{n % 24:02}:{n % 60:02}:07.{n:06}Z",
            "values": {"whole": n * n * 7919 - 10, "number": n / 7 - 3.5, "text": text, "mixed": mixed},
        }
        if n % 3 == 0:
            row |= {"status": f"s {n}", "latitude": 47.5 + n / 1000, "longitude": -122.25, "elevation": n / 2}
        return row | ({"id": f"own-{n}"} if n % 4 == 0 else {})

    def answers(self) -> dict[str, Any]:
        """What is told of every dataset."""
        found = {}
        for one in self.ask("GET", "/v1/datasets")["items"]:
            path = f"/v1/datasets/{one['id']}"
            found[one["name"]] = {
                "dataset": one,
                "keys": self.ask("GET", f"{path}/keys"),
                "ledger": self.ask("GET", f"{path}/ledger"),
                "csv": self.ask("GET", f"{path}/readings.csv"),
            }
        return found


async def make(place: Path) -> Path:
    """A new instance, filled and kept."""
    async with own_posthouse(place / "instance") as posthouse:
        filler = Filler(posthouse)
        deleted = filler.fill(place)
        handles = ("--handles", "weather.get_forecast", "--publishes", "weather.storm_seen")
        weather = json.loads(posthouse.run("account", "add", "weather", *handles, "--json").stdout)

        async def settled() -> bool:
            return all(one["ledger"]["in_flight"] == 0 for one in filler.answers().values())

        await until_it_is(settled, "everything is stored")
        file = place / "kept.backup"
        done = posthouse.run("backup", "--compression", "0", str(file))
        assert done.returncode == 0, done.stderr
        answers = {**NAMED, "datasets": filler.answers(), "deleted": deleted, "weather": weather}
    name = commit(ROOT)[:7]
    (KEPT / f"{name}.backup.xz").write_bytes(lzma.compress(file.read_bytes(), preset=9))
    (KEPT / f"{name}.expected.json.xz").write_bytes(lzma.compress(json.dumps(answers).encode(), preset=9))
    return KEPT / f"{name}.backup.xz"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        print(asyncio.run(make(Path(directory))))
