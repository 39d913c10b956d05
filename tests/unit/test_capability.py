"""What a grant admits, and nothing more."""

from __future__ import annotations

import math
import posixpath
import re
import time

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from opsexec.capability import SAFE_PATH, Capability, CapabilitySet, Requirement, clean_path, least, program_candidates
from opsexec.errors import BadCapability, BadStep, CapabilityDenied, LimitExceeded, OpsError
from opsexec.far.match import argv_matches, normalise, path_matches, word_matches
from opsexec.verbs import ANY_PATTERN, VERBS

SEGMENT = st.text(alphabet="ab.*", min_size=1, max_size=4)
NAME = st.text(alphabet="ab.", min_size=1, max_size=4)
PATHS = st.lists(NAME, max_size=5).map(lambda names: normalise("/" + "/".join(names)))
PATTERNS = st.lists(
    st.one_of(st.just("**"), SEGMENT.filter(lambda s: "**" not in s and s not in (".", ".."))),
    min_size=1,
    max_size=5,
).map(lambda parts: "/" + "/".join(parts))


def as_regex(pattern: str) -> re.Pattern[str]:
    """The documented meaning of a path pattern, by way of a regular expression."""
    parts = []
    for segment in pattern.split("/")[1:]:
        if segment == "**":
            parts.append("(?:/[^/]+)*")
        else:
            parts.append("/" + "[^/]*".join(re.escape(piece) for piece in segment.split("*")))
    return re.compile("".join(parts), re.DOTALL)


@given(PATTERNS, PATHS)
@example("/**", "/")
@example("/a/**", "/a")
@example("/**/b", "/b")
@example("/**/a/**/b", "/a/b/a/b")
def test_a_path_pattern_means_what_the_grammar_says(pattern, path):
    expected = as_regex(pattern).fullmatch("" if path == "/" else path) is not None
    assert path_matches(pattern, path) == expected


@given(SEGMENT, NAME)
def test_a_star_stands_for_any_run_of_characters_in_its_word(pattern, word):
    expected = re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), word, re.DOTALL) is not None
    assert word_matches(pattern, word) == expected


@given(st.lists(st.sampled_from(["a", "b", "..", ".", "", "c c", "…"]), max_size=12).map(lambda p: "/" + "/".join(p)))
def test_a_normalised_path_is_one_that_has_no_other_name(path):
    clean = normalise(path)
    assert clean == posixpath.normpath("/" + path.lstrip("/"))
    assert normalise(clean) == clean
    assert not set(clean.split("/")[1:]) & {".", ".."}


@pytest.mark.parametrize(
    "path", ["", "a", "./a", "../a", "~/a", "/a\0", "/" + "a" * 5000, "C:\\a", "file:///etc/passwd"]
)
def test_a_path_that_is_not_absolute_or_too_long_is_none(path):
    with pytest.raises(ValueError, match=r"."):
        normalise(path)


def test_a_path_is_as_long_as_the_system_takes():
    assert normalise("/" + "a" * 4095) == "/" + "a" * 4095
    with pytest.raises(ValueError, match="longer than 4096"):
        normalise("/" + "a" * 4096)


@given(PATHS, st.lists(st.sampled_from(["..", ".", "x", ""]), max_size=6))
def test_dots_never_leave_a_grant(path, steps):
    assume(path != "/")
    granted = CapabilitySet.of(f"fs.write:{path}/**")
    asked = normalise(path + "/" + "/".join(steps))
    inside = asked == path or asked.startswith(path + "/")
    assert granted.admits(Requirement("fs.write", asked)) == inside


def quick(work) -> None:
    begun = time.process_time()
    work()
    assert time.process_time() - begun < 2


def test_no_pattern_takes_long_on_any_path():
    quick(lambda: word_matches("*a" * 2000 + "b", "a" * 4000))
    quick(lambda: path_matches("/**/a" * 300 + "/b", "/a" * 2000))
    quick(lambda: path_matches("/**" * 500, "/a" * 2000))
    quick(lambda: argv_matches(["/a", *["*"] * 5000], ["/a", *["x"] * 5000]))


@pytest.mark.parametrize(
    ("grant", "argv", "admitted"),
    [
        ("exec:/usr/bin/uptime", ["/usr/bin/uptime"], True),
        ("exec:/usr/bin/uptime", ["/usr/bin/uptime", "-p"], False),
        ("exec:/usr/bin/uptime **", ["/usr/bin/uptime"], True),
        ("exec:/usr/bin/uptime **", ["/usr/bin/uptime", "-p", "x"], True),
        ("exec:/usr/bin/git pull *", ["/usr/bin/git", "pull", "origin"], True),
        ("exec:/usr/bin/git pull *", ["/usr/bin/git", "pull"], False),
        ("exec:/usr/bin/git pull *", ["/usr/bin/git", "pull", "a", "b"], False),
        ("exec:/usr/bin/git pull *", ["/usr/bin/git", "-c", "core.sshCommand=x", "pull", "a"], False),
        ("exec:/usr/bin/git pull 'two words'", ["/usr/bin/git", "pull", "two words"], True),
        ("exec:/usr/bin/git pull 'two words'", ["/usr/bin/git", "pull", "two", "words"], False),
        ("exec:/usr/bin/*", ["/usr/bin/id"], True),
        ("exec:/usr/bin/*", ["/usr/bin/sub/id"], False),
        ("exec:/usr/**", ["/usr/bin/sub/id"], True),
        ("exec:/usr/bin/env", ["/usr/bin/ENV"], False),
        ("exec:/bin/sh -c *", ["/bin/sh", "-c", "a\nb"], True),
        ("exec:/bin/sh -c ''", ["/bin/sh", "-c", ""], True),
        ("exec:/bin/sh -c ''", ["/bin/sh", "-c", "x"], False),
        ("exec:/bin/sh *", ["/bin/sh", ""], True),
        ("exec:**", ["/any/thing", "at", "all"], True),
        ("tty:/bin/bash -l", ["/bin/bash", "-l"], False),
    ],
)
def test_an_argv_is_matched_word_by_word(grant, argv, admitted):
    assert CapabilitySet.of(grant).admits(Requirement("exec", tuple(argv))) == admitted


def test_a_bare_name_is_admitted_only_where_a_system_directory_has_it():
    granted = CapabilitySet.of("exec:/usr/bin/git **", "exec:/opt/bin/git **")
    assert granted.admitted_programs(Requirement("exec", ("git", "pull"))) == ("/usr/bin/git",)
    assert program_candidates("git") == tuple(f"{directory}/git" for directory in SAFE_PATH)
    assert granted.admits(Requirement("exec", ("git", "pull")))
    assert not granted.admits(Requirement("exec", ("hg", "pull")))
    assert " ".join(SAFE_PATH) == "/usr/local/sbin /usr/local/bin /usr/sbin /usr/bin /sbin /bin"
    assert len(program_candidates("a" * 255)) == 6
    with pytest.raises(BadStep, match="no file name is so long"):
        program_candidates("a" * 256)


def test_what_was_asked_last_does_not_answer_for_what_is_asked_now():
    granted = CapabilitySet.of("exec:/usr/bin/git **")
    asked = [("exec", "git", ("/usr/bin/git",)), ("exec", "sh", ()), ("tty", "git", ())] * 2
    for verb, program, admitted in asked:
        need = Requirement(verb, (program,))
        assert (granted.admitted_programs(need), granted.admitted_programs(need)) == (admitted, admitted)


def test_a_grant_of_programs_admits_nothing_that_is_no_argv():
    assert not Capability.parse("exec:**").admits(Requirement("exec", "**"))
    assert not Capability.parse("fs.read:/**").admits(Requirement("fs.read", ("/a",)))


@pytest.mark.parametrize("path", ["/a\0", "/" + "a" * 4096, "a", ""])
def test_a_path_that_is_none_is_no_steps(path):
    with pytest.raises(BadStep, match=r"^path "):
        clean_path(path)
    assert clean_path("/a/./b/../c/") == "/a/c"


@pytest.mark.parametrize("name", ["", ".", "..", "bin/sh", "./sh", "../sh", "a/../sh", "s\0h", "~/sh"])
def test_a_program_whose_place_depends_on_the_caller_is_refused(name):
    with pytest.raises(BadStep):
        program_candidates(name)


@pytest.mark.parametrize(
    ("grant", "action", "admitted"),
    [
        ("shell:deploy", f"deploy@sha256:{'0' * 64}", True),
        (f"shell:deploy@sha256:{'0' * 64}", f"deploy@sha256:{'0' * 64}", True),
        (f"shell:deploy@sha256:{'1' * 64}", f"deploy@sha256:{'0' * 64}", False),
        ("shell:deploy.*", f"deploy.web@sha256:{'0' * 64}", True),
        ("shell:deploy.*", f"deployx@sha256:{'0' * 64}", False),
        ("shell:*", f"anything@sha256:{'0' * 64}", True),
        ("shell:*0", f"deploy@sha256:{'0' * 64}", False),
        ("shell:deploy", "deploy", True),
    ],
)
def test_a_pin_admits_one_script_and_no_pin_admits_the_action(grant, action, admitted):
    assert CapabilitySet.of(grant).admits(Requirement("shell", action)) == admitted


BAD = {
    "exec": "not a capability",
    "fly:/a": "unknown verb",
    "fs.raed:/a": "unknown verb",
    "*:/a": "unknown verb",
    "fs.*.x:/a": "unknown verb",
    "f*:/a": "unknown verb",
    "fs.read:": "empty",
    "fs.read: /a": "padded",
    "fs.read:a": "not absolute",
    "fs.read:/a/": "ends with /",
    "fs.read:/a//b": "segment",
    "fs.read:/a/../b": "segment",
    "fs.read:/a/./b": "segment",
    "fs.read:/a**": "stray wildcard",
    "fs.read:/**a": "stray wildcard",
    "fs.read:/a/***": "stray wildcard",
    "fs.read:/a\0": "stray wildcard",
    "fs.read:/a ": "padded",
    "exec:git pull": "not absolute",
    "exec:* pull": "not absolute",
    "exec:** pull": "after a leading",
    "exec:/bin/sh ** x": "stray wildcard",
    "exec:/bin/sh a**": "stray wildcard",
    "exec:/bin/sh 'open": "quotation",
    "exec:/bin//sh": "segment",
    "shell:": "empty",
    "shell:a b": "stray",
    "shell:**": "stray",
    "shell:a@sha256:12": "pin",
    "shell:a@sha256:" + "A" * 64: "pin",
    f"shell:a@sha256:{'0' * 65}": "pin",
    f"shell:a@sha256:{'0' * 64}x": "pin",
    "shell:a\n": "padded",
    "shell:a\nb": "stray",
    "service.control:a**": "stray",
}


@pytest.mark.parametrize("text", BAD)
def test_what_is_not_in_the_grammar_is_an_error_with_a_hint(text):
    with pytest.raises(BadCapability, match=BAD[text]) as caught:
        CapabilitySet.of(text)
    assert caught.value.hint


def test_a_misspelt_verb_is_told_its_nearest():
    with pytest.raises(BadCapability) as caught:
        Capability.parse("fs.raed:/a")
    assert "fs.read" in str(caught.value.hint)


VERB = st.sampled_from([*VERBS, "fs.*", "service.*", "fly"])


@given(st.one_of(st.text(max_size=60), st.builds("{}:{}".format, VERB, st.text(alphabet="/ab.* '\\@\0-", max_size=20))))
def test_any_text_is_a_capability_or_a_bad_capability(text):
    try:
        granted = CapabilitySet.of(text)
    except BadCapability:
        return
    assert granted.describe() == [text]


def test_a_family_names_all_of_its_verbs():
    granted = CapabilitySet.of("fs.*:/srv/**")
    assert [v for v in VERBS if granted.path_layers(v)[0]] == ["fs.read", "fs.write", "fs.remove"]


def test_everything_admits_every_verb_and_nothing_admits_none():
    resources: dict[str, str | tuple[str, ...]] = {"path": "/a/b", "argv": ("/bin/sh", "-c", "x"), "name": "a"}
    for name, verb in VERBS.items():
        need = Requirement(name, resources[verb.kind])
        assert CapabilitySet.everything().admits(need)
        assert CapabilitySet.of(f"{name}:{ANY_PATTERN[verb.kind]}").admits(need)
        assert not CapabilitySet.nothing().admits(need)
        assert not CapabilitySet([]).admits(need)
        CapabilitySet.everything().require_user("root")


GRANTS = st.one_of(
    PATTERNS.map(lambda p: f"fs.read:{p}"),
    PATTERNS.map(lambda p: f"fs.*:{p}"),
    st.sampled_from(["exec:/usr/bin/a", "exec:/usr/bin/* **", "exec:**", "exec:/usr/bin/b *", "service.read:a*"]),
)
LIMIT = st.one_of(st.none(), st.integers(1, 100))
SETS = st.builds(
    lambda grants, users, seconds, size: CapabilitySet.of(
        *grants, run_as=users, max_timeout_s=seconds, max_output_bytes=size
    ),
    st.lists(GRANTS, max_size=4),
    st.lists(st.sampled_from(["root", "deploy", "*"]), max_size=2),
    LIMIT,
    LIMIT,
)
NEEDS = st.one_of(
    PATHS.map(lambda p: Requirement("fs.read", p)),
    PATHS.map(lambda p: Requirement("fs.write", p)),
    st.sampled_from([("/usr/bin/a",), ("a",), ("b", "x"), ("/usr/bin/b", "x"), ("/opt/a",)]).map(
        lambda argv: Requirement("exec", argv)
    ),
    st.sampled_from(["a", "ab", "b"]).map(lambda name: Requirement("service.read", name)),
)
ARGV0 = ("a", "b")


def bare(need: Requirement) -> bool:
    return isinstance(need.resource, tuple) and not need.resource[0].startswith("/")


@given(SETS, SETS, NEEDS)
def test_an_intersection_admits_exactly_what_both_admit(one, other, need):
    both = one.intersect(other)
    if bare(need):
        # A bare name stands for several programs: both sets must admit the same one of them.
        shared = set(one.admitted_programs(need)) & set(other.admitted_programs(need))
        assert set(both.admitted_programs(need)) == shared
    else:
        assert both.admits(need) == (one.admits(need) and other.admits(need))


@given(SETS, SETS, SETS, NEEDS)
def test_intersecting_is_commutative_associative_and_idempotent(a, b, c, need):
    assert a & b == b & a
    assert (a & b) & c == a & (b & c)
    assert a & a == a
    assert hash(a & b) == hash(b & a)
    assert (a & b & c).admits(need) <= a.admits(need)


@given(SETS, SETS, st.sampled_from(["root", "deploy", "other"]))
def test_intersecting_only_ever_narrows_the_limits(one, other, user):
    both = one & other

    def may(held: CapabilitySet) -> bool:
        try:
            held.require_user(user)
        except CapabilityDenied:
            return False
        return True

    assert may(both) == (may(one) and may(other))
    for name in ("max_timeout_s", "max_output_bytes"):
        limits = [limit for limit in (getattr(one, name), getattr(other, name)) if limit is not None]
        assert getattr(both, name) == min(limits, default=None)


@given(SETS, NEEDS)
def test_everything_is_neutral_and_nothing_absorbs(held, need):
    assert (held & CapabilitySet.everything()).admits(need) == held.admits(need)
    assert not (held & CapabilitySet.nothing()).admits(need)


@given(SETS, NEEDS)
def test_the_layers_sent_to_the_host_decide_as_the_set_does(held, need):
    from opsexec.far.match import admits_path
    from opsexec.far.message import pack_layers, unpack_layers

    assume(isinstance(need.resource, str) and VERBS[need.verb].kind == "path")
    layers = unpack_layers(pack_layers((held & held).path_layers(need.verb)))
    assert admits_path(layers, str(need.resource)) == held.admits(need)


def test_a_timeout_is_held_to_the_shortest_limit():
    held = CapabilitySet.of(max_timeout_s=30) & CapabilitySet.of(max_timeout_s=10)
    assert held.clamp_timeout(None) == 10
    assert held.clamp_timeout(5) == 5
    with pytest.raises(LimitExceeded):
        held.clamp_timeout(11)
    assert CapabilitySet.of().clamp_timeout(None) is None


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_that_is_not_positive_is_refused(limit):
    for name in ("max_timeout_s", "max_output_bytes"):
        with pytest.raises(OpsError):
            CapabilitySet.of(**{name: limit})


@given(st.lists(NEEDS.filter(lambda need: not bare(need)), max_size=6))
def test_the_least_capabilities_admit_what_they_were_made_from(needs):
    texts = least(needs)
    assume(all("*" not in text for text in texts))
    granted = CapabilitySet.of(*texts)
    assert all(granted.admits(need) for need in needs)


@pytest.mark.parametrize("limit", [0, -1, math.nan, math.inf])
def test_a_limit_is_a_positive_number(limit):
    with pytest.raises(BadCapability):
        CapabilitySet.of("exec:**", max_timeout_s=limit)


def test_one_user_given_as_text_is_not_taken_for_its_letters():
    with pytest.raises(BadCapability):
        CapabilitySet.of("exec:**", run_as="root")
