"""`import`: a CSV file into a dataset, in order, going on where an interrupted import stopped."""

from __future__ import annotations

import csv
import hashlib
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from deploy.cli.client import Problem, Server
from deploy.cli.csvfile import MAX_BATCH_LINES, Batch, Survey, batches, survey
from deploy.cli.errors import Stopped
from deploy.cli.progress import Progress

# Columns the server reads as parts of a reading, not as variables.
PARTS = frozenset({"id", "entry", "at", "status", "latitude", "longitude", "elevation"})
DEFAULT_TIME_COLUMN = "at"
NOTHING_STORED, MALFORMED = "nothing_stored", "malformed"
CSV = {"Content-Type": "text/csv; charset=utf-8"}


@dataclass(frozen=True)
class Reading:
    """How the times of a CSV are read and written: the same for import and export."""

    time_column: str = ""
    time_format: str = ""
    timezone: str = ""

    def parameters(self) -> dict[str, str]:
        """What is set, as parameters of a request."""
        return {name: value for name, value in vars(self).items() if value}


@dataclass(frozen=True)
class Refused:
    """A line that was not stored, and why."""

    line: int
    code: str
    message: str


@dataclass
class Outcome:
    """What became of a file.

    `resumed` is the line an earlier run had come to, `skipped` counts readings it stored after that.
    """

    lines: int = 0
    resumed: int = 0
    stored: int = 0
    skipped: int = 0
    refused: list[Refused] = field(default_factory=list)


class Report:
    """Refused lines as a CSV file, each written when it is known; an import that goes on appends."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._file: TextIO | None = None

    def open(self, *, append: bool) -> None:
        """Begin, or go on with the report of the interrupted import."""
        if self._path is None:
            return
        append = append and self._path.exists()
        try:
            self._file = self._path.open("a" if append else "w", newline="", encoding="utf-8")
        except OSError as error:
            raise Stopped(f"The report {self._path} cannot be written: {error.strerror}.") from None
        if not append:
            csv.writer(self._file, lineterminator="\n").writerow(["line", "code", "message"])

    def add(self, refused: list[Refused]) -> None:
        """Keep these lines, on disk before the next request."""
        if self._file is not None:
            rows = [(one.line, one.code, one.message) for one in refused]
            csv.writer(self._file, lineterminator="\n").writerows(rows)
            self._file.flush()

    def close(self) -> None:
        """The end of the report."""
        if self._file is not None:
            self._file.close()


@dataclass
class Import:
    """One file on its way into one dataset; `outcome` is what is known so far, also when it broke off."""

    path: Path
    dataset: str
    reading: Reading
    label: str
    progress: Progress
    report: Report
    max_lines: int = MAX_BATCH_LINES
    outcome: Outcome = field(default_factory=Outcome)

    async def run(self, server: Server) -> None:
        """Send what the server does not have yet; refused lines do not stop it."""
        file = survey(self.path)
        self._check_columns(file)
        dataset_id = await self._dataset(server, file)
        source = self._source(file)
        done = int((await server.get(f"/v1/datasets/{dataset_id}/imports/{source}"))["position"])
        self.outcome.lines, self.outcome.resumed = file.lines, done
        self.report.open(append=done > 0)
        self.progress.begin(file.lines, done)
        try:
            for batch in batches(self.path, done, self.max_lines):
                await self._send(server, batch, dataset_id, source)
                self.progress.at(batch.last)
        finally:
            self.progress.close()
            self.report.close()

    def _check_columns(self, file: Survey) -> None:
        wanted = self.reading.time_column or DEFAULT_TIME_COLUMN
        if wanted != DEFAULT_TIME_COLUMN and DEFAULT_TIME_COLUMN in file.columns:
            raise Stopped(f"{self.path} has two columns of times: {wanted!r} and {DEFAULT_TIME_COLUMN!r}.")
        if wanted not in file.columns:
            names = ", ".join(file.columns)
            raise Stopped(f"{self.path} has no column {wanted!r}: set --time-column to one of {names}.")

    def _source(self, file: Survey) -> str:
        """Names this import: other content, other times or another label make another import."""
        times = self.reading
        said = "\0".join([file.digest, times.time_column, times.time_format, times.timezone, self.label])
        return "csv-" + hashlib.sha256(said.encode()).hexdigest()[:40]

    async def _dataset(self, server: Server, file: Survey) -> str:
        known = await find_dataset(server, self.dataset)
        if known is not None:
            return known
        time_column = self.reading.time_column or DEFAULT_TIME_COLUMN
        tags = [name for name in file.columns if name != time_column and name not in PARTS]
        made = {"name": self.dataset, "variables": [{"tag": tag} for tag in tags]}
        return str((await server.post("/v1/datasets", key=f"cli-{uuid.uuid4()}", json=made))["id"])

    async def _send(self, server: Server, batch: Batch, dataset_id: str, source: str) -> None:
        params = {**self.reading.parameters(), "source": source, "position": str(batch.last)}
        path, key = f"/v1/datasets/{dataset_id}/readings", f"cli-{uuid.uuid4()}"
        try:
            answer = await server.post(path, key=key, params=params, data=batch.body, headers=CSV)
        except Problem as problem:
            if problem.code == MALFORMED and len(batch.records) > 1:
                for half in batch.halves():  # until the line that is no CSV is alone
                    await self._send(server, half, dataset_id, source)
                return
            answer = _nothing_stored(batch, problem)
        refused = [_refused(batch, one) for one in answer.get("rejected", ())]
        self.outcome.stored += len(answer["entries"])
        self.outcome.skipped += int(answer.get("skipped", 0))
        self.outcome.refused += refused
        self.report.add(refused)


async def find_dataset(server: Server, wanted: str) -> str | None:
    """The id of the caller's dataset that has this name or id; an id is taken as it is."""
    if is_id(wanted):
        return wanted
    found, after = [], ""
    while True:
        page = await server.get("/v1/datasets", limit="1000", **({"after": after} if after else {}))
        found += [dataset["id"] for dataset in page["items"] if dataset["name"] == wanted]
        after = page["next"] or ""
        if not after:
            break
    if len(found) > 1:
        raise Stopped(f"{len(found)} datasets are called {wanted!r}: name one by its id: {', '.join(found)}.")
    return found[0] if found else None


def is_id(text: str) -> bool:
    """Whether this can only be the id of a dataset."""
    try:
        return str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False


def _nothing_stored(batch: Batch, problem: Problem) -> dict[str, Any]:
    """A refusal of all lines as an answer that lists them; raises it when it is about something else."""
    if problem.code == MALFORMED:
        lines = [{"index": batch.header_lines + 1, "code": MALFORMED, "message": problem.detail}]
    elif problem.code == NOTHING_STORED:
        # Each reason is a mistake of the request whose path is the index of its line.
        lines = [{**one, "index": one["path"]} for one in problem.errors]
    else:
        raise problem
    return {"entries": [], "rejected": lines}


def _refused(batch: Batch, one: dict[str, Any]) -> Refused:
    return Refused(batch.line_of(int(one["index"])), str(one["code"]), str(one["message"]))
