"""A tree is listed within its grants and bounds, and nothing in it makes the listing leave, wait or swell."""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any

import pytest

from opsexec.far import listing
from opsexec.far.listing import list_tree
from opsexec.far.message import pack_layers, pack_message


def listed(path, *, grants=None, excludes=(), most=1000, file_bytes=1 << 20, all_bytes=1 << 30):
    layers = pack_layers([[f"{path}/**"] if grants is None else grants])
    patterns = pack_message([os.fsencode(each) for each in excludes])
    numbers = [b"%d" % each for each in (most, file_bytes, all_bytes)]
    lines, meta = list_tree([os.fsencode(path), layers, patterns, *numbers])
    entries: dict[str, Any] = {each["path"]: each for each in map(json.loads, lines.splitlines())}
    return entries, json.loads(meta)


@pytest.fixture
def tree(tmp_path):
    real = tmp_path.resolve() / "tree"
    (real / "a/b").mkdir(parents=True)
    (real / "a/file").write_bytes(b"text")
    (real / "a/file").chmod(0o755)
    (real / "a/b/out").symlink_to("/etc/shadow")
    return real


def test_each_entry_says_what_it_is(tree):
    entries, meta = listed(tree)
    assert sorted(entries) == ["a", "a/b", "a/b/out", "a/file"]
    digest = hashlib.sha256(b"text").hexdigest()
    assert entries["a/file"] == {
        "path": "a/file", "kind": "file", "mode": "0755", "size": 4, "links": 1, "sha256": digest,
    }  # fmt: skip
    assert (entries["a/b/out"]["kind"], entries["a/b/out"]["target"]) == ("link", "/etc/shadow")
    assert meta == {"exists": True, "entries": 4, "cut": False, "denied": 0, "unreadable": 0}


def test_what_is_no_file_is_named_and_not_opened(tree):
    os.mkfifo(tree / "pipe")
    entries, _ = listed(tree)
    assert entries["pipe"]["kind"] == "fifo"
    assert "sha256" not in entries["pipe"]


def test_a_link_in_the_place_of_the_tree_is_not_followed(tree, tmp_path):
    (tmp_path / "tree2").symlink_to(tree)
    assert listed(tmp_path.resolve() / "tree2")[1]["exists"] is False


def test_a_huge_sparse_file_is_listed_unread(tree):
    with open(tree / "huge", "wb") as file:
        file.truncate(1 << 40)
    entries, _ = listed(tree)
    assert (entries["huge"]["size"], "sha256" in entries["huge"]) == (1 << 40, False)


def test_it_stops_at_its_bounds_and_says_so(tree):
    for number in range(50):
        (tree / f"f{number}").write_bytes(b"x" * 100)
    entries, meta = listed(tree, most=10)
    assert (len(entries), meta["cut"]) == (10, True)
    entries, _ = listed(tree, all_bytes=500)
    assert sum("sha256" in each for each in entries.values()) == 5


def test_a_tree_deeper_than_it_walks_is_cut_not_followed_for_ever(tree):
    deep = os.open(tree, os.O_RDONLY)
    for _ in range(200):
        os.mkdir("d", dir_fd=deep)
        inner = os.open("d", os.O_RDONLY, dir_fd=deep)
        os.close(deep)
        deep = inner
    os.close(deep)
    entries, meta = listed(tree, most=100_000)
    assert meta["cut"]
    assert len(entries) < 150


def test_what_is_excluded_is_not_entered(tree):
    assert sorted(listed(tree, excludes=["/a/b/***"])[0]) == ["a", "a/file"]


def test_entries_outside_the_grants_are_counted_not_shown(tree):
    entries, meta = listed(tree, grants=[str(tree), f"{tree}/a", f"{tree}/a/file"])
    assert (sorted(entries), meta["denied"]) == (["a", "a/file"], 1)


def test_a_name_that_is_no_text_comes_back_as_its_bytes(tree):
    (tree / os.fsdecode(b"\xff\n")).write_bytes(b"")
    entries, _ = listed(tree)
    assert os.fsencode(next(iter(set(entries) - {"a", "a/b", "a/b/out", "a/file"}))) == b"\xff\n"


def test_long_names_fill_no_memory(tree, monkeypatch):
    """Whoever fills a tree also says how long its names are."""
    monkeypatch.setattr(listing, "MAX_TEXT", 20_000)
    for number in range(100):
        (tree / "a" / (f"{number:03}" + "\u00e9" * 100)).touch()
    entries, meta = listed(tree)
    assert meta["cut"] is True
    assert 10 < len(entries) < 40
    assert all(path.rpartition("/")[0] in ("", *entries) for path in entries)


def test_a_path_that_no_program_can_name_is_cut_and_the_rest_is_listed(tree):
    deep = os.open(tree, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("d" * 255, dir_fd=deep)
        inner = os.open("d" * 255, os.O_RDONLY, dir_fd=deep)
        os.close(deep)
        deep = inner
    os.close(deep)
    entries, meta = listed(tree)
    assert (max(map(len, entries)), meta["cut"]) == (16 * 255 + 15, True)
    assert "a/file" in entries
