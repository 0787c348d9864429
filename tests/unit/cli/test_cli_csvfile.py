"""A CSV file is cut into requests of whole lines that know where they came from."""

from pathlib import Path

import pytest

from deploy.cli import csvfile
from deploy.cli.csvfile import batches, survey
from deploy.cli.errors import Stopped


def file(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "some.csv"
    path.write_bytes(data)
    return path


def test_every_request_has_the_header_and_whole_lines(tmp_path):
    path = file(tmp_path, b"at,temp\n1,a\n2,b\n3,c")
    assert [(b.first, b.last, b.body) for b in batches(path, 0, max_lines=2)] == [
        (2, 3, b"at,temp\n1,a\n2,b\n"),
        (4, 4, b"at,temp\n3,c"),
    ]


def test_goes_on_behind_the_line_the_server_has(tmp_path):
    path = file(tmp_path, b"at,temp\n1,a\n2,b\n3,c\n")
    assert [(b.first, b.last) for b in batches(path, 3)] == [(4, 4)]
    assert list(batches(path, 4)) == []


def test_a_line_of_the_request_is_found_in_the_file(tmp_path):
    path = file(tmp_path, b"at,temp\n1,a\n2,b\n3,c\n4,d\n")
    second = list(batches(path, 0, max_lines=2))[1]
    assert second.line_of(2) == 4
    assert second.line_of(3) == 5


def test_a_request_can_be_halved(tmp_path):
    path = file(tmp_path, b"at,temp\n1,a\n2,b\n3,c\n")
    [batch] = batches(path, 0)
    assert [(b.first, b.last, b.body) for b in batch.halves()] == [
        (2, 2, b"at,temp\n1,a\n"),
        (3, 4, b"at,temp\n2,b\n3,c\n"),
    ]


def test_a_quoted_value_keeps_its_line_breaks_in_one_request(tmp_path):
    path = file(tmp_path, b'at,note\n1,"a\nb ""c"""\n2,5" pipe\n3,d\n')
    assert [(b.first, b.last, b.body) for b in batches(path, 0, max_lines=1)] == [
        (2, 3, b'at,note\n1,"a\nb ""c"""\n'),
        (4, 4, b'at,note\n2,5" pipe\n'),
        (5, 5, b"at,note\n3,d\n"),
    ]


def test_a_request_stays_below_the_limit_of_the_server(tmp_path, monkeypatch):
    monkeypatch.setattr(csvfile, "MAX_BODY_BYTES", 20)
    path = file(tmp_path, b"at,temp\n" + b"12345\n" * 5)
    assert [b.body.count(b"\n") - 1 for b in batches(path, 0)] == [2, 2, 1]
    with pytest.raises(Stopped, match="line 2"):
        list(batches(file(tmp_path, b"at,temp\n" + b"1" * 30), 0))


def test_the_survey_counts_lines_and_names_the_columns(tmp_path):
    told = survey(file(tmp_path, b'\xef\xbb\xbfat,"temp, outside"\r\n1,2\r\n'))
    assert told.lines == 2
    assert told.columns == ("at", "temp, outside")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "first line"),
        (b"\n1,2\n", "first line"),
        (b"at,temp,temp\n", "a name of its own"),
        (b"at,temp\n1,\xff\n", "line 2: not UTF-8"),
        (b'at,temp\n1,2\n1,"2\n', "line 3: a quotation mark"),
    ],
)
def test_what_is_no_csv_is_said_with_its_line(tmp_path, data, words):
    with pytest.raises(Stopped, match=words):
        survey(file(tmp_path, data))


def test_a_file_that_is_not_there_is_said(tmp_path):
    with pytest.raises(Stopped, match="No such file"):
        survey(tmp_path / "none.csv")
