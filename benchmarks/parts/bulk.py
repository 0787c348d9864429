"""A thousand readings for each request, until stored, beside a COPY without a broker."""

from __future__ import annotations

import json

from benchmarks.contest import against_each, counting, our, rotate, their
from benchmarks.load import Request
from benchmarks.parts.write import JSON, OUR_READINGS
from benchmarks.stage import Stage
from benchmarks.table import Row, Target

SECONDS = 50
ROWS = 1_000
CONNECTIONS = 8
TARGETS = {"copy_bulk": Target(0.80)}
# Each request is an hour of its own; forty bursts in a row are far enough apart that no hour comes twice, and
# none of them lies in the future.
BODIES = """
local number, hour = 0, 0
function init(args)
  hour = %d + tonumber(args[1]) %% 40 * 5000
end
function request()
  number = number + 1
  local at = os.date("!%%Y-%%m-%%dT%%H", (hour + number) * 3600)
  return wrk.format(nil, nil, nil, (string.gsub(template, "@", at)))
end
"""
FIRST_HOUR = 289_296
"""2003-01-01T00:00Z, in hours since 1970."""


def template() -> str:
    """A body of 1,000 readings of one hour, which stands there as `@`."""
    readings = [
        {
            "at": f"@:{number * 3600 // ROWS // 60:02}:{number * 3.6 % 60:04.1f}Z",
            "values": {"temperature": number * 7919 % 5000 / 100, "humidity": number * 31 % 1000 / 10},
        }
        for number in range(ROWS)
    ]
    return json.dumps(readings, separators=(",", ":"))


def request(path: str, headers: dict[str, str]) -> Request:
    """A body for each request, every time distinct."""
    lua = f"local template = {json.dumps(template())}" + BODIES % FIRST_HOUR
    return Request(path=path, method="POST", headers=JSON | headers, lua=lua)


async def run(stage: Stage) -> list[Row]:
    """Rates are readings a second."""
    path = f"/v1/datasets/{await stage.dataset('bulk')}/readings"
    stored = counting(stage, OUR_READINGS)
    ours = our(stage, "ours", request(path, await stage.bearer()), stored, rows=ROWS)
    async with stage.peers(*TARGETS) as running:
        count = counting(stage, "SELECT count(*) FROM copy_bulk.reading", "bench")
        same = request("/readings", {})
        peers = [their(stage, peer, same, count, rows=ROWS) for peer in running.values()]
        bursts = await rotate(stage, [ours, *peers], CONNECTIONS)
    await stage.check_rows()
    return against_each(stage, "bulk", CONNECTIONS, bursts, "ours", TARGETS, "readings a second")
