"""One row for each request, protected against repeats, beside the same INSERT without a broker."""

from __future__ import annotations

import json

from benchmarks.contest import against_each, counting, our, rotate, their
from benchmarks.load import Request
from benchmarks.stage import Running, Stage
from benchmarks.table import Row, Target

SECONDS = 75
PEER = "fastapi_insert"
DATASETS = 50
JSON = {"Content-Type": "application/json"}
READING = json.dumps({"values": {"temperature": 22.5}})
DATASET = json.dumps(
    {
        "name": "porch",
        "variables": [
            {"tag": "temperature", "name": "Temperature", "unit": "degC"},
            {"tag": "humidity", "name": "Humidity", "unit": "%"},
        ],
    }
)
OUR_READINGS = "SELECT coalesce(sum(entries), 0) FROM ingest.dataset_counter"
BATCH, SINGLE = Target(1.5), Target(1.0)
BATCH_NOTE = "set-based: the readings of a delivery are one transaction"
SINGLE_NOTE = "a dataset, its counter, two variables, two keys: one transaction for each request"


def their_readings(stage: Stage, peer: Running) -> str:
    """What counts the readings a peer has stored."""
    return f"SELECT count(*) FROM {peer.name}.reading"  # noqa: S608 (a name of ours)


async def readings(stage: Stage, *datasets: str) -> Request:
    """One reading to one dataset, or to several in turn."""
    paths = [f"/v1/datasets/{dataset}/readings" for dataset in datasets]
    headers = JSON | await stage.bearer()
    if len(paths) == 1:
        return Request(path=paths[0], method="POST", headers=headers, body=READING)
    return Request(paths=paths, method="POST", headers=headers, body=READING)


async def run(stage: Stage) -> list[Row]:
    """Readings to one dataset and to many; then datasets."""
    one = await stage.dataset("write")
    many = [await stage.dataset(f"write {number}") for number in range(DATASETS)]
    async with stage.peers(PEER) as running:
        return [*await _readings(stage, running, one, many), *await _datasets(stage, running)]


async def _readings(stage: Stage, running: dict[str, Running], one: str, many: list[str]) -> list[Row]:
    stored = counting(stage, OUR_READINGS)
    labels = {"1 dataset": await readings(stage, one), f"{DATASETS} datasets": await readings(stage, *many)}
    contenders = [our(stage, label, request, stored) for label, request in labels.items()]
    ask = Request(path="/readings", method="POST", headers=JSON, body=READING)
    contenders += [
        their(stage, peer, ask, counting(stage, their_readings(stage, peer), "bench"))
        for peer in running.values()
    ]
    bursts = await rotate(stage, contenders, 64)
    return [
        row
        for label in labels
        for row in against_each(stage, f"write, batch, {label}", 64, bursts, label, {PEER: BATCH}, BATCH_NOTE)
    ]


async def _datasets(stage: Stage, running: dict[str, Running]) -> list[Row]:
    headers = JSON | await stage.bearer()
    make = Request(path="/v1/datasets", method="POST", headers=headers, body=DATASET)
    contenders = [our(stage, "ours", make, counting(stage, "SELECT count(*) FROM ingest.dataset"))]
    same = Request(path="/datasets", method="POST", headers=JSON, body=DATASET)
    count = counting(stage, f"SELECT count(*) FROM {PEER}.dataset", "bench")  # noqa: S608 (a name of ours)
    contenders += [their(stage, peer, same, count) for peer in running.values()]
    bursts = await rotate(stage, contenders, 64)
    return against_each(stage, "write, one each", 64, bursts, "ours", {PEER: SINGLE}, SINGLE_NOTE)
