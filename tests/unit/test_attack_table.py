"""The record of the attacks: what a run writes is what it saw, and the same outcomes write the same text."""

from __future__ import annotations

from pathlib import Path

from tests.parts.attack_table import FAILED, MET, Key, merged, missing, recorded, render
from tests.parts.attacks import PLACES, attacks

HERE = "unit/test_attack_table.py"
ELSEWHERE = "unit/test_bottle_plan.py"


def key(attack: str, place: str = "bwrap", file: str = HERE, function: str = "test_x") -> Key:
    return Key(attack, place, file, function)


def test_the_list_is_whole() -> None:
    found = attacks()
    assert len(found) >= 208
    for each in found.values():
        assert each.where, each
        assert set(each.where) <= set(PLACES)
        assert each.tried, each
        assert each.wanted, each


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    said = {
        key("DN1"): MET,
        key("DN1", "docker"): "not met: the engine's resolver answers / too early",
        key("PX5", function="test_PX5_y"): FAILED,
        key("PX5"): "not run: needs a part",
    }
    path = tmp_path / "results.md"
    path.write_text(render(said))
    assert recorded(path) == said
    assert render(recorded(path)) == path.read_text()
    assert "| PX5 | bwrap | FAILED |" in path.read_text()
    assert "1 met, 1 not met, 1 FAILED" in path.read_text()


def test_a_run_replaces_its_own_files_and_no_other() -> None:
    before = {key("DN1"): MET, key("DN3"): MET, key("DN4", file=ELSEWHERE): MET, key("DN5", file="unit/gone.py"): MET}
    after = merged(before, {key("DN1"): FAILED})
    assert after == {key("DN1"): FAILED, key("DN4", file=ELSEWHERE): MET}


def test_what_cannot_run_here_stays_as_it_was() -> None:
    before = {key("DN1"): MET}
    found = {key("DN1"): "not run: no engine", key("DN3"): "not run: no engine"}
    assert merged(before, found) == {key("DN1"): MET, key("DN3"): "not run: no engine"}


def test_an_attack_without_test_or_reason_is_named() -> None:
    owed = missing(set())
    assert "MF12 alone" in owed
    assert "MF12 alone" not in missing({key("MF12", "alone")})
