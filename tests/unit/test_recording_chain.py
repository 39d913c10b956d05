"""The chain through a recording: whatever is done to its bytes shows, wherever a link was noted."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsexec.recording_chain import Anchor, Chain, RecordingForged, verify_recording

RUN = "0123456789abcdef"


def recorded(lines: list[bytes], every: int = 3, final: bool = True) -> tuple[bytes, list[Anchor]]:
    """A chained recording, and its links as an audit has them."""
    chain, data, anchors = Chain(RUN), b"", []
    for number, line in enumerate(lines, 1):
        chain.add(line)
        data += line
        if number % every == 0 or number == len(lines):
            data += chain.next_link()
            last = final and number == len(lines)
            anchors.append(Anchor(bytes=len(data), link=chain.links, head=chain.head, final=last))
    return data, anchors


LINES = [b'{"version":3}\n', *(b'[0.1,"o","%d"]\n' % n for n in range(10))]


def check(path: Path, data: bytes, anchors: list[Anchor], run: str = RUN) -> object:
    path.write_bytes(data)
    return verify_recording(path, run, anchors)


def test_what_was_recorded_holds(tmp_path: Path) -> None:
    data, anchors = recorded(LINES)
    found = verify_recording(_written(tmp_path, data), RUN, anchors)
    assert (found.links, found.complete, found.size) == (4, True, len(data))
    assert found.chained == found.anchored == len(data)


def _written(directory: Path, data: bytes) -> Path:
    path = directory / "a.cast"
    path.write_bytes(data)
    return path


def test_a_recording_whose_agent_was_killed_holds_up_to_its_last_link(tmp_path: Path) -> None:
    data, anchors = recorded(LINES, final=False)
    torn = data + b'[0.2,"o","and th'
    found = verify_recording(_written(tmp_path, torn), RUN, anchors)
    assert (found.complete, found.anchored, found.size) == (False, len(data), len(torn))


@given(st.data())
def test_any_byte_that_is_changed_removed_or_added_is_found(tmp_path_factory: pytest.TempPathFactory, data) -> None:
    whole, anchors = recorded(LINES)
    at = data.draw(st.integers(0, len(whole) - 1))
    how = data.draw(st.sampled_from(["change", "remove", "add", "cut"]))
    byte = bytes([data.draw(st.integers(0, 255).filter(lambda b: b != whole[at]))])
    bad = {
        "change": whole[:at] + byte + whole[at + 1 :],
        "remove": whole[:at] + whole[at + 1 :],
        "add": whole[:at] + byte + whole[at:],
        "cut": whole[:at],
    }[how]
    with pytest.raises(RecordingForged):
        check(tmp_path_factory.mktemp("cast") / "a", bad, anchors)


def test_links_that_the_audit_does_not_know_vouch_for_nothing(tmp_path: Path) -> None:
    data, anchors = recorded(LINES)
    with pytest.raises(RecordingForged, match="nothing vouches"):
        check(tmp_path / "a", data, [])
    with pytest.raises(RecordingForged, match="noted twice"):
        check(tmp_path / "a", data, [*anchors, anchors[0]])
    other, _ = recorded([line.replace(b"5", b"6") for line in LINES])
    with pytest.raises(RecordingForged, match="another hash"):
        check(tmp_path / "a", other, anchors)
    with pytest.raises(RecordingForged):
        check(tmp_path / "a", data, anchors, run="another-run")


def test_links_are_checked_where_only_some_of_them_were_noted(tmp_path: Path) -> None:
    data, anchors = recorded(LINES)
    assert check(tmp_path / "a", data, anchors[-1:])
    with pytest.raises(RecordingForged, match="something before this line"):
        check(tmp_path / "a", data.replace(b'"0"', b'"9"', 1), anchors[-1:])
