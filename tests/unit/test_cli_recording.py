"""Recordings in asciicast v3: what is written is read back, and what is no recording is refused with its line."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsexec.errors import RecordingFailed, UsageError
from opsexec.recording import BadRecording, Event, Recording, read_recording
from tests.conftest import require

SIZE: dict[str, Any] = {"columns": 80, "rows": 24, "term": "xterm", "title": "web1", "command": "/bin/sh -l"}
HEADER = '{"version":3,"term":{"cols":80,"rows":24}}\n'


def test_what_is_recorded_is_read_back_with_its_times(tmp_path: Path) -> None:
    now = iter([0.0, 0.5, 0.75, 2.0])
    recording = Recording.create(tmp_path / "a", **SIZE, clock=lambda: next(now))
    recording.output(b"hi")
    recording.resized(100, 30)
    recording.ended(3)
    recording.close()
    header, events = read_recording(tmp_path / "a")
    assert (header.columns, header.rows, header.title) == (80, 24, "web1")
    assert list(events) == [Event(0.5, "o", "hi"), Event(0.25, "r", "100x30"), Event(1.25, "x", "3")]


@given(st.integers(0, 65535), st.integers(0, 65535))
def test_a_terminal_of_any_size_gives_a_recording_that_is_read_back(tmp_path_factory, columns: int, rows: int) -> None:
    path = tmp_path_factory.mktemp("cast") / "a"
    recording = Recording.create(path, **{**SIZE, "columns": columns, "rows": rows})
    recording.resized(columns, rows)
    recording.close()
    header, events = read_recording(path)
    wanted = (min(max(columns, 1), 9999), min(max(rows, 1), 9999))
    assert (header.columns, header.rows) == wanted
    assert [each.text for each in events] == ["{}x{}".format(*wanted)]


@given(st.binary(max_size=200), st.data())
def test_output_is_valid_utf8_however_its_bytes_are_cut(tmp_path_factory, data: bytes, cuts) -> None:
    path = tmp_path_factory.mktemp("cast") / "a"
    recording = Recording.create(path, **SIZE)
    at = 0
    while at < len(data):
        size = cuts.draw(st.integers(1, len(data) - at))
        recording.output(data[at : at + size])
        at += size
    recording.ended(0)
    recording.close()
    _, events = read_recording(path)
    assert "".join(e.text for e in events if e.code == "o") == data.decode("utf-8", "replace")


def test_intervals_add_up_to_the_time_that_passed(tmp_path: Path) -> None:
    ticks = itertools.count()
    recording = Recording.create(tmp_path / "a", **SIZE, clock=lambda: next(ticks) / 3)
    for _ in range(3000):
        recording.output(b"x")
    recording.close()
    _, events = read_recording(tmp_path / "a")
    assert sum(e.interval_s for e in events) == pytest.approx(1000, abs=0.001)


def test_a_file_that_exists_or_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("mine")
    with pytest.raises(UsageError, match="exists"):
        Recording.create(tmp_path / "a", **SIZE)
    with pytest.raises(UsageError, match="can't be made"):
        Recording.create(tmp_path / "no" / "a", **SIZE)
    assert (tmp_path / "a").read_text() == "mine"


def test_a_recording_that_is_discarded_goes_and_what_stands_in_its_place_stays(tmp_path: Path) -> None:
    recording = Recording.create(tmp_path / "a", **SIZE)
    assert recording.empty
    recording.discard()
    recording.discard()
    assert not (tmp_path / "a").exists()
    other = Recording.create(tmp_path / "b", **SIZE)
    other.output(b"hi")
    assert not other.empty
    (tmp_path / "b").unlink()
    (tmp_path / "b").write_text("mine")
    other.discard()
    assert (tmp_path / "b").read_text() == "mine"


def test_a_full_disk_is_an_error_and_not_a_silent_gap() -> None:
    require(Path("/dev/full"), "needs /dev/full")
    recording = Recording(Path("/dev/full"), os.open("/dev/full", os.O_WRONLY))
    with pytest.raises(RecordingFailed, match="No space left"):
        recording.output(b"x")
    recording.close()


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("", ":1: no asciicast v3"),
        ("hello\n", ":1: no asciicast v3"),
        ('{"version":2,"width":80,"height":24}\n', ":1: no asciicast v3"),
        ('{"version":3,"term":{"cols":"80","rows":24}}\n', ":1: no asciicast v3"),
        ('{"version":3,"term":{"cols":0,"rows":24}}\n', ":1: no asciicast v3"),
        ('{"version":3,"term":{"cols":80,"rows":9' + "0" * 30 + "}}\n", ":1: no asciicast v3"),
        ('{"version":3,"term":{"cols":80,"rows":24},"timestamp":9' + "0" * 400 + "}\n", ":1: no asciicast v3"),
        (HEADER + '[1.0,"r","80x24x"]\n', ":2: not an event"),
        (HEADER + '[1.0,"r","99999x24"]\n', ":2: not an event"),
        (HEADER + '[1.0,"x","none"]\n', ":2: not an event"),
        (HEADER + '[1.0,"o","\\ud800"]\n', ":2: not an event"),
        (HEADER + '[1.0,"o","' + "x" * (17 << 20) + '"]\n', ":2: not an event"),
        (HEADER + '[1.0,"o"]\n', ":2: not an event"),
        (HEADER + '# a comment\n[1.0,"o","x"]\n[-1,"o","x"]\n', ":4: not an event"),
        (HEADER + 'null\n[1,"o","x"]\n', ":2: not an event"),
    ],
)
def test_what_is_no_recording_is_refused_with_its_line(tmp_path: Path, text: str, where: str) -> None:
    (tmp_path / "a").write_text(text)
    with pytest.raises(BadRecording) as caught:
        list(read_recording(tmp_path / "a")[1])
    assert f"{tmp_path}/a{where}" in caught.value.message


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadRecording, match="can't be read"):
        read_recording(tmp_path / "a")


def test_a_last_line_that_a_crash_tore_ends_the_events(tmp_path: Path) -> None:
    line = json.dumps([0.1, "o", "whole"]) + "\n"
    for cut in range(len(line) - 1):
        (tmp_path / "a").write_text(HEADER + line + line[:cut])
        assert list(read_recording(tmp_path / "a")[1]) == [Event(0.1, "o", "whole")]
