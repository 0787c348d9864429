"""Import and export over HTTP: nothing twice, nothing in silence, whatever the server does meanwhile."""

from __future__ import annotations

import asyncio
import csv
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
from aiohttp.test_utils import TestServer

from deploy.cli import main as cli
from deploy.cli.client import Credentials, Patience, Problem, connected
from deploy.cli.errors import Stopped
from deploy.cli.exporting import Export
from deploy.cli.importing import Import, Reading, Report
from deploy.cli.progress import Progress
from tests.unit.cli.posthouse_stand_in import UNREADABLE, WRONG, StandIn

TIMES = Reading(time_column="date")


@dataclass
class Place:
    """A stand-in that listens, and a file to import."""

    stand_in: StandIn
    url: str
    path: Path

    def import_of(self, dataset: str = "seattle", label: str = "", report: Path | None = None) -> Import:
        quiet = SimpleNamespace(isatty=lambda: False)
        return Import(self.path, dataset, TIMES, label, Progress(dataset, quiet), Report(report), max_lines=2)

    async def run(self, work: Import, **patience: object) -> Import:
        async with connected(self.url, Credentials(token="t"), no_pauses(**patience)) as server:
            await work.run(server)
        return work


def no_pauses(seconds: float = 60.0, paused: list[float] | None = None) -> Patience:
    """Patience whose clock moves only by its own pauses."""
    passed = [] if paused is None else paused

    async def pause(length: float) -> None:
        passed.append(length)

    return Patience(seconds, clock=lambda: sum(passed), pause=pause)


@pytest.fixture
async def place(tmp_path):
    stand_in = StandIn()
    path = tmp_path / "temps.csv"
    path.write_text("date,temp\n" + "".join(f"d{n},{n}.0\n" for n in range(1, 6)))
    async with TestServer(stand_in.app()) as server:
        yield Place(stand_in, str(server.make_url("/")), path)


def days(place: Place) -> list[str]:
    return [row["date"] for row in place.stand_in.rows]


async def test_a_file_arrives_in_order_in_a_dataset_made_for_it(place):
    work = await place.run(place.import_of())
    assert days(place) == ["d1", "d2", "d3", "d4", "d5"]
    assert work.outcome.stored == 5
    assert [d["variables"] for d in place.stand_in.datasets] == [[{"tag": "temp"}]]


async def test_a_dataset_of_that_name_is_found_on_any_page(place):
    place.stand_in.page_size = 2
    place.stand_in.datasets = [{"id": f"id-{n}", "name": name} for n, name in enumerate("abc")]
    await place.run(place.import_of("c"))
    assert len(place.stand_in.datasets) == 3


async def test_two_datasets_of_one_name_are_not_guessed_between(place):
    place.stand_in.datasets = [{"id": f"id-{n}", "name": "seattle"} for n in range(2)]
    with pytest.raises(Stopped, match="id-0, id-1"):
        await place.run(place.import_of())


async def test_a_second_run_sends_nothing(place):
    await place.run(place.import_of())
    again = await place.run(place.import_of())
    assert again.outcome.resumed == 6
    assert again.outcome.stored == 0
    assert len(place.stand_in.rows) == 5


async def test_with_a_label_the_file_is_imported_again(place):
    await place.run(place.import_of())
    await place.run(place.import_of(label="second"))
    assert len(place.stand_in.rows) == 10


async def test_an_interrupted_import_goes_on_where_the_server_stopped(place):
    def interrupt(position: int) -> None:
        place.stand_in.on_batch = lambda position: None
        place.stand_in.failures = [400]

    place.stand_in.on_batch = interrupt
    with pytest.raises(Problem):
        await place.run(place.import_of())
    assert days(place) == ["d1", "d2"]
    rest = await place.run(place.import_of())
    assert days(place) == ["d1", "d2", "d3", "d4", "d5"]
    assert (rest.outcome.resumed, rest.outcome.stored) == (3, 3)


async def test_a_batch_whose_answer_was_lost_is_repeated_under_its_key(place):
    place.stand_in.lost_answers = [504, 503]
    work = await place.run(place.import_of())
    assert days(place) == ["d1", "d2", "d3", "d4", "d5"]
    assert work.outcome.stored == 5


@pytest.mark.parametrize("failure", [0, 429, 502, 503, 504])
async def test_a_server_that_is_away_is_waited_for(place, failure):
    paused: list[float] = []
    place.stand_in.failures = [failure] * 3
    await place.run(place.import_of(), paused=paused)
    assert paused[0] == 0.5
    assert len(place.stand_in.rows) == 5


async def test_each_pause_is_longer_up_to_a_limit(place):
    paused: list[float] = []
    place.stand_in.failures = [503] * 6
    await place.run(place.import_of(), paused=paused)
    assert paused == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]


async def test_a_server_that_stays_away_is_given_up(place):
    place.stand_in.failures = [503] * 99
    with pytest.raises(Stopped, match="Given up after 10 s"):
        await place.run(place.import_of(), seconds=10.0)


async def test_refused_lines_are_reported_with_their_line_in_the_file(place, tmp_path):
    lines = ["date,temp", "d1,1", f"d2,{WRONG}", "d3,3", f"d4,{WRONG}", f"d5,{WRONG}", "d6,6"]
    place.path.write_text("\n".join(lines))
    report = tmp_path / "report.csv"
    work = await place.run(place.import_of(report=report))
    assert days(place) == ["d1", "d3", "d6"]
    assert [one.line for one in work.outcome.refused] == [3, 5, 6]
    with report.open(newline="") as file:
        assert [row["line"] for row in csv.DictReader(file)] == ["3", "5", "6"]


async def test_a_batch_of_which_nothing_was_stored_does_not_stop_the_rest(place):
    place.path.write_text(f"date,temp\nd1,{WRONG}\nd2,{WRONG}\nd3,3\n")
    work = await place.run(place.import_of())
    assert days(place) == ["d3"]
    assert [one.line for one in work.outcome.refused] == [2, 3]


async def test_a_line_that_is_no_csv_is_refused_alone(place):
    place.path.write_text(f"date,temp\nd1,1\nd2,{UNREADABLE}\nd3,3\nd4,4\n")
    work = place.import_of()
    work.max_lines = 100
    await place.run(work)
    assert days(place) == ["d1", "d3", "d4"]
    assert [(one.line, one.code) for one in work.outcome.refused] == [(3, "malformed")]


async def test_the_column_of_times_must_be_there(place):
    place.path.write_text("day,temp\n1,2\n")
    with pytest.raises(Stopped, match="no column 'date'"):
        await place.run(place.import_of())
    assert place.stand_in.callers == []


async def test_an_export_equals_the_file(place):
    await place.run(place.import_of())
    place.path.write_bytes(place.path.read_bytes().removesuffix(b"\n"))
    assert await exported(place, final_newline=False) == place.path.read_bytes()
    assert await exported(place, final_newline=True) == place.path.read_bytes() + b"\n"


async def exported(place: Place, *, final_newline: bool) -> bytes:
    copy = place.path.with_name("copy.csv")
    async with connected(place.url, Credentials(token="t"), no_pauses()) as server:
        with copy.open("wb") as file:
            await Export(server, "seattle", TIMES, final_newline).run(file)
    return copy.read_bytes()


Run = Callable[..., Awaitable[int]]


@pytest.fixture
def run(place) -> Run:
    """The command line itself, in a thread with a loop of its own."""

    async def run(*arguments: str, **environment: str) -> int:
        known = {"POSTHOUSE_URL": place.url, "POSTHOUSE_TOKEN": "t", **environment}
        return await asyncio.to_thread(cli.main, arguments, known)

    return run


async def test_exit_status_0_says_that_all_is_stored(place, run, capsys):
    options = ["--dataset", "seattle", "--time-column", "date", "--timezone", "-08:00"]
    assert await run("import", str(place.path), *options) == 0
    assert "5 readings stored, 0 lines refused" in capsys.readouterr().err
    assert await run("export", *options) == 0
    assert capsys.readouterr().out + "\n" == place.path.read_text()


async def test_exit_status_1_says_that_lines_were_refused(place, run, capsys):
    place.path.write_text(f"date,temp\nd1,1\nd2,{WRONG}\n")
    assert await run("import", str(place.path), "--dataset", "seattle", "--time-column", "date") == 1
    assert "line 3: bad_value: no number" in capsys.readouterr().err


async def test_exit_status_2_says_that_it_did_not_work(place, run, capsys):
    assert await run("export", "--dataset", "none") == 2
    assert "no dataset called 'none'" in capsys.readouterr().err


async def test_a_name_and_a_password_open_a_session_and_another_when_it_expires(place, run):
    def expire(position: int) -> None:
        place.stand_in.on_batch = lambda position: None
        place.stand_in.tokens.append("Bearer of somebody else")

    place.stand_in.on_batch = expire
    place.path.write_text("date,temp\n" + "d,1\n" * 1_500)
    who = {"POSTHOUSE_TOKEN": "", "POSTHOUSE_NAME": "ann", "POSTHOUSE_PASSWORD": "correct horse"}
    assert await run("import", str(place.path), "--dataset", "s", "--time-column", "date", **who) == 0
    assert len(place.stand_in.tokens) == 3
    assert len(place.stand_in.rows) == 1_500


async def test_a_wrong_password_is_said(place, run, capsys):
    who = {"POSTHOUSE_TOKEN": "", "POSTHOUSE_NAME": "ann", "POSTHOUSE_PASSWORD": "wrong"}
    assert await run("export", "--dataset", "seattle", **who) == 2
    assert "name or password is wrong" in capsys.readouterr().err


async def test_nobody_is_calling(run, capsys):
    assert await run("export", "--dataset", "seattle", POSTHOUSE_TOKEN="") == 2
    assert "Say who is calling" in capsys.readouterr().err


async def test_a_dataset_key_is_sent_as_such_and_needs_an_id(place, run, capsys):
    key = {"POSTHOUSE_TOKEN": "", "POSTHOUSE_KEY": "ABCDEF0123456789"}
    assert await run("import", str(place.path), "--dataset", "seattle", **key) == 2
    dataset_id = "0198a8c4-0000-7000-8000-000000000001"
    done = await run("import", str(place.path), "--dataset", dataset_id, "--time-column", "date", **key)
    assert done == 0
    assert set(place.stand_in.callers) == {"ABCDEF0123456789"}


async def test_an_export_that_breaks_off_leaves_no_file_and_says_so(place, run, tmp_path, capsys):
    await place.run(place.import_of())
    place.stand_in.export_breaks = True
    copy = tmp_path / "copy.csv"
    assert await run("export", "--dataset", "seattle", "--output", str(copy)) == 2
    assert "broke off" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [place.path]


async def test_an_export_replaces_the_old_file_in_one_step(place, run, tmp_path):
    await place.run(place.import_of())
    copy = tmp_path / "copy.csv"
    copy.write_text("old")
    assert await run("export", "--dataset", "seattle", "--output", str(copy), "--final-newline") == 0
    assert copy.read_bytes() == place.path.read_bytes()


def test_a_bar_is_drawn_on_a_terminal():
    shown: list[str] = []
    terminal = SimpleNamespace(isatty=lambda: True, write=shown.append, flush=lambda: None)
    clock = iter(range(100))
    bar = Progress("seattle", terminal, lambda: float(next(clock)))
    bar.begin(1_000, 0)
    bar.at(500)
    bar.say("waiting: the server answers 503")
    bar.close()
    assert "50%  500/1,000 lines" in shown[0]
    assert "waiting" in shown[1]
    assert shown[-1] == "\n"


def test_without_a_terminal_nothing_is_drawn():
    shown: list[str] = []
    pipe = SimpleNamespace(isatty=lambda: False, write=shown.append, flush=lambda: None)
    bar = Progress("seattle", pipe)
    bar.begin(2, 0)
    bar.at(2)
    bar.say("waiting")
    bar.close()
    assert shown == []
