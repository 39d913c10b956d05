"""Exclude patterns mean what rsync means by them, and what isn't understood is refused by name."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opsexec import CapabilitySet, Pull, Push
from opsexec.errors import BadStep
from opsexec.far.exclude import Excludes, Pattern
from opsexec.steps.trees import ListTree
from opsexec.testing import FakeHost, fake_executor
from tests.conftest import require

CASES = [
    ("a", "a", True),
    ("a", "x/a", True),
    ("a", "ab", False),
    ("/a", "a", True),
    ("/a", "x/a", False),
    ("*.o", "x.o", True),
    ("*.o", "d/x.o", True),
    ("*.o", "x.oo", False),
    ("a/b", "a/b", True),
    ("a/b", "x/a/b", True),
    ("a/b", "xa/b", False),
    ("/a/*", "a/b", True),
    ("/a/*", "a/b/c", False),
    ("/a/**", "a/b/c", True),
    ("a/**", "a", False),
    ("**/a", "a", True),
    ("**/a", "x/y/a", True),
    ("a**b", "a/x/b", True),
    ("?", "x", True),
    ("?", "xy", False),
    ("x?z", "x/z", False),
    ("[ab]", "b", True),
    ("[!ab]", "b", False),
    ("[^ab]", "c", True),
    ("[a-c]x", "bx", True),
    ("[]]", "]", True),
    ("x[a-]", "x-", True),
    ("*", "anything", True),
    ("**", "a/b", True),
    ("a\\*", "a*", True),
    ("a\\*", "ax", False),
    ("a\\b", "a\\b", True),
    ("*a*a*", "banana", True),
    ("x/*/y", "q/x/1/y", True),
    ("x/*/y", "x/1/2/y", False),
]


@pytest.mark.parametrize(("pattern", "path", "excluded"), CASES)
def test_a_pattern_excludes_what_it_should(pattern: str, path: str, excluded: bool) -> None:
    assert Pattern(os.fsencode(pattern)).matches(os.fsencode(path), False) is excluded


def test_a_trailing_slash_is_about_directories_only() -> None:
    assert Pattern(b"d/").matches(b"x/d", True)
    assert not Pattern(b"d/").matches(b"x/d", False)


def test_three_stars_take_the_directory_too() -> None:
    assert Pattern(b"d/***").matches(b"d", True)
    assert Pattern(b"d/***").matches(b"d/x/y", False)
    assert not Pattern(b"d/***").matches(b"d", False)


NAMES = ["a", "b", "ab", "x.o", "d", "a*", "é", "\\", "[", "-"]
TEXTS = st.text(alphabet="ab*?/.o\\[]!d-", min_size=1, max_size=7)


@settings(max_examples=120)
@given(st.lists(TEXTS, min_size=1, max_size=2))
def test_any_pattern_excludes_exactly_what_rsync_excludes(texts: list[str]) -> None:
    require("rsync", "needs rsync to compare with")
    try:
        excludes = Excludes(os.fsencode(text) for text in texts)
    except ValueError:
        return
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        for one in NAMES:
            (top / one).mkdir()
            for two in NAMES:
                (top / one / two).write_bytes(b"")
        wanted = set()
        for path in top.rglob("*"):
            relative = path.relative_to(top)
            chain = [*reversed(relative.parents), relative][1:]
            if not any(excludes.excludes(os.fsencode(part), (top / part).is_dir()) for part in chain):
                wanted.add(str(relative))
        options = [f"--exclude={text}" for text in texts]
        done = subprocess.run(
            ["rsync", "-a", "--dry-run", "-i", "--out-format=%n", *options, f"{top}/", f"{top}.new/"],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
        )
        listed = {line.rstrip("/") for line in done.stdout.splitlines()} - {".", f"created directory {top}.new"}
    assert wanted == listed


@pytest.mark.parametrize("pattern", ["+ a", "- a", "!", "[[:alpha:]]", "a[b", "/", "//", "*\\", "x[/]"])
@pytest.mark.anyio
async def test_a_pattern_that_is_not_understood_is_refused_before_the_host_is_asked(pattern: str) -> None:
    host = FakeHost()
    async with fake_executor(host, CapabilitySet.everything()) as ex:
        for step in (Push("/src", "/dst", excludes=(pattern,)), Pull("/src", "/dst", excludes=(pattern,))):
            with pytest.raises(BadStep, match="exclude") as caught:
                await ex.run(step)
            assert pattern in str(caught.value)
    assert host.calls == []


def test_no_pattern_is_slow() -> None:
    begun = time.process_time()
    Pattern(b"**a**a**a**a**a**a**a**a**b").matches(b"a" * 4000, False)
    Pattern(b"*a*a*a*a*a*a*a*a*a*a*a*b").matches(b"a" * 255, False)
    assert time.process_time() - begun < 2


def test_no_patterns_that_are_taken_fill_memory() -> None:
    """8,192 of `[!x]` took 69 MB and a quarter of a second each time an agent read them on its loop."""
    tracemalloc.start()
    try:
        assert Excludes([b"[!x]" * 1024] * 8).excludes(b"y" * 1024, False)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("patterns", "says"),
    [
        (("a" * 4096,) * 8, None),
        (("[a-z]" * 1_000_000,), "is over 4096 bytes"),
        (("a" * 4096,) * 8 + ("b",), "all of them are over 32768 bytes"),
    ],
)
@pytest.mark.anyio
async def test_patterns_so_long_that_an_agent_would_stand_still_are_refused(
    patterns: tuple[str, ...], says: str | None
) -> None:
    """An agent reads them on its loop: five million bytes of them held everybody up for a minute, in 2 GB."""
    if says is None:
        assert ListTree(path="/a", excludes=patterns).excludes == patterns
        return
    with pytest.raises(BadStep, match=says) as caught:
        ListTree(path="/a", excludes=patterns)
    assert len(str(caught.value)) < 400
    async with fake_executor(FakeHost(), CapabilitySet.everything()) as ex:
        with pytest.raises(BadStep, match=says):
            await ex.run(Push("/src", "/dst", excludes=patterns))
