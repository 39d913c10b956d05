"""What git's configuration, the directory's own or the person's, runs of a directory doesn't come back unasked."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from bottle.workspace.changes import Compared, compare
from bottle.workspace.copy_in import list_tree
from bottle.workspace.git_names import MAX_INCLUDED, included, named, persons_files, read_config
from bottle.workspace.review import Base, needs, review
from bottle.workspace.tree import Entry, Tree
from opsexec.capability import CapabilitySet
from opsexec.local import LocalExec
from opsexec.steps import ListTree

CONFIG = b"""[core]
\tbare = false
\thooksPath = tools/on-commit
\tautocrlf = input
[include]\tpath = ../settings/shared
[filter "big"]
\tclean = "python3 ./scripts/clean.py %f"
[alias] ship = !sh bin/ship.sh
[remote "origin"]
\turl = ../docs
[branch "main"]
\tmerge = refs/heads/main
"""


def changed(path: str, *asked: str) -> Compared:
    """One file, changed."""
    before, after = (Tree({path: Entry(path, "file", 0o644, 1, sha256=each)}) for each in "12")
    return compare(before, after, lambda path, directory: False, asked, named(CONFIG))


@pytest.mark.parametrize(
    "path", ["tools/on-commit", "tools/on-commit/lib.sh", "settings/shared", "scripts/clean.py", "bin/ship.sh"]
)
def test_what_the_directory_s_own_git_runs_waits_until_it_is_asked_for(path: str) -> None:
    found = changed(path)
    assert [(held.path, held.askable) for held in found.held] == [(path, True)]
    assert found.changes == []
    assert [change.path for change in changed(path, path).changes] == [path]


@pytest.mark.parametrize("path", ["input", "docs", "false", "refs/heads/main", "tools/x", "main", "url"])
def test_other_words_of_git_s_configuration_hold_nothing_back(path: str) -> None:
    assert [change.path for change in changed(path).changes] == [path]


def test_a_link_in_the_place_of_a_directory_above_it_waits_too() -> None:
    before = Tree({"tools": Entry("tools", "directory", 0o755, 0)})
    after = Tree({"tools": Entry("tools", "link", 0o777, 1, target="elsewhere")})
    found = compare(before, after, lambda path, directory: False, run=named(CONFIG))
    assert [held.path for held in found.held] == ["tools"]
    assert found.changes == []


PLACES = ("/home/ann/shop",)


@pytest.mark.parametrize(
    ("word", "path"),
    [
        ("/home/ann/shop/on-commit", "on-commit"),
        ("~/shop/on-commit/", "on-commit"),
        ("/home/ann/shop/../shop/on-commit", "on-commit"),
        ("/home/ann/shop", None),
        ("/home/ann/shopping/on-commit", None),
        ("/home/ann/shop/../on-commit", None),
        ("~bob/shop/on-commit", None),
        ("/usr/share/on-commit", None),
    ],
)
def test_a_whole_path_into_the_directory_counts(word: str, path: str | None) -> None:
    assert named(f"[core] hooksPath = {word}\n".encode(), PLACES, "/home/ann") == ({path} if path else set())


def test_of_a_person_s_configuration_a_bare_word_is_a_program() -> None:
    config = b"[core]\npager = less -R\nhooksPath = .hooks.d\n[alias]\nship = !sh bin/ship.sh\n"
    assert named(config, PLACES, "/home/ann", persons=True) == {".hooks.d", "bin/ship.sh"}
    assert named(config) == {"less", "-R", "sh", ".hooks.d", "bin/ship.sh"}


@pytest.mark.parametrize(
    ("line", "path"),
    [
        ("[include] path = more", "/home/ann/git/more"),
        ("[Include]\nPath=../more ; shared", "/home/ann/more"),
        ('[include]\n\tpath = "a \\"b\\" #c" # not this', '/home/ann/git/a "b" #c'),
        ("[include]\npath = mo\\\nre", "/home/ann/git/more"),
        ('[includeIf "gitdir:~/[work]/"]\r\n\tpath = ~/work', "/home/ann/work"),
        ('[includeIf "onbranch:x"] path = /etc/more', "/etc/more"),
        ('[include "x"]\npath = config', None),
        ("[include]\npath =\n[core]\npath = more", None),
        ("[include" + " " * 100_000 + "x]\npath = more", None),
    ],
)
def test_what_a_configuration_includes_is_read_as_git_finds_it(line: str, path: str | None) -> None:
    found = included(line.encode(), "/home/ann/git/config", "/home/ann", lambda path: b"")
    assert [each for each, _ in found] == ([path] if path else [])


def test_files_that_include_each_other_are_read_once_and_their_number_is_bounded() -> None:
    circle = {"/a": b"[include]\npath = b", "/b": b"[include]\npath = a\npath = c", "/c": b"[include] path = b"}
    assert [*included(circle["/a"], "/a", "", lambda path: circle[path])] == [(at, circle[at]) for at in ("/b", "/c")]
    endless = included(b"[include] path = x", "/a", "", lambda path: f"[include] path = {path}x".encode())
    assert len([*endless]) == MAX_INCLUDED
    assert len([*included(b"[include] path = x", "/a", "", lambda path: b"[include] path = y%d\n" * 10**6)]) == 1


@pytest.mark.parametrize(
    ("environment", "files"),
    [
        ({}, ["/etc/gitconfig", "/home/ann/.config/git/config", "/home/ann/.gitconfig"]),
        ({"XDG_CONFIG_HOME": "/x"}, ["/etc/gitconfig", "/x/git/config", "/home/ann/.gitconfig"]),
        ({"GIT_CONFIG_GLOBAL": "/g"}, ["/etc/gitconfig", "/g"]),
        ({"GIT_CONFIG_GLOBAL": "", "GIT_CONFIG_SYSTEM": "/s"}, ["/s"]),
    ],
)
def test_where_a_person_s_configuration_is(environment: dict[str, str], files: list[str]) -> None:
    assert [*map(str, persons_files(environment, "/home/ann"))] == files


def test_a_configuration_that_can_t_be_read_says_nothing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").write_bytes(CONFIG)
    assert [read_config(tmp_path / each) for each in ("missing", "fifo", "file", "file/x")] == [b"", b"", CONFIG, b""]


@pytest.mark.anyio
async def test_a_review_reads_the_person_s_configuration_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start, left, source = tmp_path / "base", tmp_path / "left", tmp_path / "shop"
    (tmp_path / "link").symlink_to(source)
    for directory, text in ((start, "echo\n"), (left, "evil\n")):
        (directory / "tools").mkdir(parents=True)
        for name in ("one", "two", "three"):
            (directory / "tools" / name).write_text(text)
    (tmp_path / "mine").write_text(f"[core]\nhooksPath = tools/one\neditor = {source.resolve()}/tools/two\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "mine"))
    async with LocalExec(capabilities=CapabilitySet.of(*needs(str(start)), *needs(str(left)))) as ex:
        base = Base(start, await list_tree(ex, ListTree(path=str(start))), str(tmp_path / "link"))
        found = await review(ex, str(left), base)
    assert {held.path for held in found.compared.held} == {"tools/one", "tools/two"}
    assert found.contents == {"tools/three": b"evil\n"}


def test_what_git_s_configuration_includes_names_what_git_runs_too(tmp_path: Path) -> None:
    start, source, home = tmp_path / "base", tmp_path / "shop", tmp_path / "home"
    for directory, hook in ((start, "one"), (source, "changed-since")):
        (directory / ".git").mkdir(parents=True)
        (directory / "shared").write_text(f"[core]\nhooksPath = tools/{hook}\n[include]\npath = {home}/all\n")
    (start / ".git" / "config").write_text("[include]\npath = ../shared\n")
    home.mkdir()
    (home / "all").write_text("[core]\npager = less\neditor = tools/two\n")
    (home / ".gitconfig").write_text('[includeIf "gitdir:~/work/"]\npath = work\n')
    (home / "work").write_text(f"[core]\nhooksPath = {source}/tools/three\n")
    base = Base(start, Tree({".git/config": Entry(".git/config", "file", 0o644, 1)}), str(source))
    found = base.run_by_git({"GIT_CONFIG_SYSTEM": ""}, str(home))
    assert {each for each in found if not each.startswith("..")} == {"shared", "tools/one", "tools/two", "tools/three"}


@pytest.mark.anyio
async def test_a_review_reads_the_configuration_of_the_start_and_not_the_agent_s(tmp_path: Path) -> None:
    start, left = tmp_path / "base", tmp_path / "left"
    (start / ".git").mkdir(parents=True)
    (start / ".git" / "config").write_bytes(CONFIG)
    (start / "bin").mkdir()
    (start / "bin" / "ship.sh").write_text("echo\n")
    shutil.copytree(start, left)
    (left / ".git" / "config").write_text("")
    (left / "bin" / "ship.sh").write_text("evil\n")
    async with LocalExec(capabilities=CapabilitySet.of(*needs(str(start)), *needs(str(left)))) as ex:
        found = await review(ex, str(left), Base(start, await list_tree(ex, ListTree(path=str(start)))))
    assert {held.path for held in found.compared.held} == {".git/config", "bin/ship.sh"}
    assert found.contents == {}
