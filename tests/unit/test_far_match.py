"""Patterns on words, paths and argvs, where random ones seldom meet: globs whose ends overlap, roots, empty words."""

from __future__ import annotations

import pytest

from opsexec.far.match import admits_path, argv_matches, path_matches, word_matches


@pytest.mark.parametrize(
    ("pattern", "word", "admitted"),
    [
        ("a", "a", True), ("a", "ab", False), ("a", "ba", False), ("", "", True), ("", "a", False), ("*", "", True),
        ("a*", "a", True), ("a*", "ba", False), ("*a", "a", True), ("*a", "ab", False), ("*a", "ba", True),
        ("a*b", "ab", True), ("a*b", "acb", True), ("a*b", "abx", False), ("a*b", "xab", False), ("a*b", "aa", False),
        ("a*a", "a", False), ("a*a", "aa", True), ("ab*ba", "aba", False), ("ab*ba", "abba", True),
        ("a*b*c", "abc", True), ("a*b*c", "ac", False), ("a*b*c", "axbxc", True), ("a*bb*b", "abb", False),
        ("a*bb*b", "abbb", True), ("*ab*ab*", "ab", False), ("*ab*ab*", "abab", True), ("*ab*ba*", "aba", False),
        ("*a*b*", "aba", True), ("*a*b*", "ba", False), ("*x*", "a", False), ("a*a*a", "aa", False), ("?", "a", False),
        ("[a]", "a", False), (".", "a", False), ("a**b", "ab", True),
    ],
)  # fmt: skip
def test_no_character_of_a_word_stands_for_two_of_its_pattern(pattern: str, word: str, admitted: bool) -> None:
    assert word_matches(pattern, word) == admitted


@pytest.mark.parametrize(
    ("pattern", "path", "admitted"),
    [
        ("/", "/", True), ("/", "/a", False), ("/*", "/", False), ("/*", "/a", True), ("/*", "/a/b", False),
        ("/**", "/", True), ("/a", "/", False), ("/a/*", "/a", False), ("/a/**", "/a", True), ("/a/**", "/ab", False),
        ("/a/**/b", "/a/b", True), ("/a/**/b", "/a/x/b", True), ("/a/**/b", "/a/b/x", False), ("/a/b", "/a/c/b", False),
        ("/a/b/c", "/a/c", False), ("/**/a/*", "/a/a/b", True), ("/**/a/*", "/a", False), ("/a/**", "/b/a/c", False),
    ],
)  # fmt: skip
def test_a_path_is_below_what_was_granted_and_nowhere_else(pattern: str, path: str, admitted: bool) -> None:
    assert path_matches(pattern, path) == admitted


@pytest.mark.parametrize(
    ("pattern", "argv", "admitted"),
    [
        (["**"], ["/a"], True), (["**"], [], False), (["/a"], [], False), (["/a", "**"], ["/a"], True),
        (["/a", "**"], ["/a", "b", "c"], True), (["/a", "**"], ["/b"], False), (["/a", "*", "**"], ["/a"], False),
        (["/a", "*", "**"], ["/a", "b"], True), (["/a", "b"], ["/a", "b", "c"], False), (["/a", "b"], ["/a"], False),
        (["/a", "b", "c"], ["/a", "x", "c"], False), (["/a", "b", "c"], ["/a", "b", "x"], False),
        (["/a", "b", "**"], ["/a", "x", "b"], False), (["/**"], ["/a/b"], True), (["/**"], ["/a/b", "c"], False),
    ],
)  # fmt: skip
def test_an_argv_is_admitted_word_by_word(pattern: list[str], argv: list[str], admitted: bool) -> None:
    assert argv_matches(pattern, argv) == admitted


def test_a_path_is_admitted_by_every_layer_or_not_at_all() -> None:
    assert admits_path([["/a/**"], ["/b", "/a/*"]], "/a/c")
    assert not admits_path([["/a/**"], ["/b", "/a/*"]], "/a/c/d")
    assert not admits_path([["/a/**"], []], "/a/c")
    assert not admits_path([], "/a/c")
