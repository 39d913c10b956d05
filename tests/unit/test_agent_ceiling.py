"""The ceiling: whose grants, under which limits, and that two grants never add up."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.ceiling import MAX_EFFORT, NO_GRANT, Ceiling, GrantSet, deciding, effective, still_admits
from agent.config import parse_config
from opsexec import CapabilitySet, Exec, MoveFile, ReadFile
from opsexec.errors import BadCapability, CapabilityDenied
from opsexec.steps.base import Step

HEAD = '[agent]\nlisten = ["unix:/run/a/a.sock"]\nstate_dir = "/var/lib/a"\n'


def ceiling(text: str) -> Ceiling:
    return Ceiling(parse_config(HEAD + text))


def admits(held: CapabilitySet, step: Step) -> bool:
    try:
        for need in step.requires():
            held.require(need)
        held.require_user(step.run_as)
    except CapabilityDenied:
        return False
    return True


def test_nobody_and_who_has_no_grant_hold_nothing() -> None:
    held = ceiling('[[grants]]\nprincipal = "unix:root"\ncapabilities = ["exec:**"]\n')
    assert held.grants(None) == []
    assert held.grants("unix:daemon") == []
    assert held.grants("unix:roo") == held.grants("unix:ROOT") == held.grants("root") == []
    assert len(held.grants("unix:root")) == 1


def test_two_grants_of_one_principal_are_never_added_up() -> None:
    held = ceiling(
        '[[grants]]\nprincipal = "unix:root"\ncapabilities = ["exec:/bin/a"]\nrun_as = ["daemon"]\n'
        '[[grants]]\nprincipal = "unix:root"\ncapabilities = ["exec:/bin/b", "env:LD_PRELOAD"]\n'
    ).grants("unix:root")
    allowed = [Exec(["/bin/a"]), Exec(["/bin/a"], run_as="daemon"), Exec(["/bin/b"], env={"LD_PRELOAD": "/x"})]
    denied = [Exec(["/bin/b"], run_as="daemon"), Exec(["/bin/a"], env={"LD_PRELOAD": "/x"}), Exec(["/bin/c"])]
    assert [admits(effective(held, None, step), step) for step in allowed] == [True] * 3
    assert [admits(effective(held, None, step), step) for step in denied] == [False] * 3


def test_the_limits_of_the_agent_bind_every_grant() -> None:
    (held,) = ceiling(
        "[limits]\nmax_timeout_s = 5.0\nmax_output_bytes = 100\n"
        '[[grants]]\nprincipal = "unix:root"\ncapabilities = ["exec:**"]\nmax_timeout_s = 60.0\nmax_output_bytes = 10\n'
    ).grants("unix:root")
    assert (held.max_timeout_s, held.max_output_bytes) == (5.0, 10)


def test_a_grant_has_no_more_than_its_own_limits_where_the_agent_has_none() -> None:
    text = '[[grants]]\nprincipal = "unix:root"\ncapabilities = ["exec:**"]\n'
    (free,) = ceiling("[limits]\nmax_timeout_s = 5.0\n" + text).grants("unix:root")
    assert free.max_timeout_s == 5.0
    (short,) = ceiling("[limits]\nmax_timeout_s = 5.0\n" + text + "max_timeout_s = 2.0\n").grants("unix:root")
    assert short.max_timeout_s == 2.0
    (own,) = ceiling(text + "max_timeout_s = 2.0\n").grants("unix:root")
    assert (own.max_timeout_s, own.max_output_bytes) == (2.0, None)


def grant(*capabilities: str, run_as: Iterable[str] = ()) -> GrantSet:
    return GrantSet(CapabilitySet.of(*capabilities, run_as=run_as).layers)


def test_the_first_grant_that_admits_all_of_a_step_decides_about_it() -> None:
    half, whole, also = grant("exec:/bin/a"), grant("exec:/bin/a", run_as=["daemon"]), grant("exec:**", run_as=["*"])
    step = Exec(["/bin/a"], run_as="daemon")
    assert deciding([half, whole, also], None, step)[0] is whole
    assert deciding([half, also, whole], None, step)[0] is also
    assert deciding([half, whole], CapabilitySet.of("exec:**", run_as=["daemon"]), step)[0] is whole
    assert deciding([half, whole, also], None, Exec(["/bin/a"]))[0] is half
    assert deciding([half, also], None, Exec(["/bin/a"]))[0] is half
    other = grant("exec:/bin/b", run_as=["daemon"])
    assert deciding([other, half], None, step)[0] is half  # what it may run says more than as whom
    assert deciding([other], None, step)[0] is other
    none = grant("exec:/bin/b")
    assert deciding([none], None, step)[0] is none
    assert deciding([], None, step) == (NO_GRANT, CapabilitySet.nothing())


def test_the_grant_that_decides_is_narrowed_by_the_callers_own_set() -> None:
    wide, own = grant("exec:**", run_as=["*"]), CapabilitySet.of("exec:/bin/a", run_as=["daemon"])
    held, narrowed = deciding([wide], own, Exec(["/bin/a"]))
    assert held is wide
    assert narrowed == wide & own
    assert deciding([wide], own, Exec(["/bin/a"]))[1] is narrowed
    assert not admits(narrowed, Exec(["/bin/a"], run_as="root"))
    assert not admits(narrowed, Exec(["/bin/b"]))


def test_a_step_that_runs_goes_on_only_while_one_grant_admits_all_of_it() -> None:
    step = Exec(["/bin/a"], run_as="daemon", env={"LD_PRELOAD": "/x"})
    parts = [grant("exec:/bin/a", run_as=["daemon"]), grant("exec:/bin/a", "env:LD_PRELOAD")]
    assert not still_admits(parts, None, step)
    assert not still_admits([], None, step)
    assert not still_admits([grant("exec:/bin/a", run_as=["daemon"])], None, step)
    whole = grant("exec:/bin/a", "env:LD_PRELOAD", run_as=["daemon"])
    assert still_admits([*parts, whole], None, step)
    assert not still_admits([whole], CapabilitySet.of("exec:/bin/a"), step)
    assert not still_admits([grant("exec:/bin/a", "env:LD_PRELOAD", run_as=["root"])], None, step)


def test_a_grant_asks_for_consent_only_where_it_says_so() -> None:
    one = '[[grants]]\nprincipal = "unix:root"\ncapabilities = ["tty:**"]\n'
    consent = '[consent]\nusers = ["unix:daemon"]\n'
    assert [held.asks_consent for held in ceiling(one).grants("unix:root")] == [False]
    asks = ceiling(consent + one + 'consent = "ask"\n').grants("unix:root")
    assert [held.asks_consent for held in asks] == [True]
    assert not grant("tty:**").asks_consent


PROGRAMS = st.sampled_from(["exec:/bin/a", "exec:/bin/b", "exec:/bin/*", "exec:**", "facts:*"])
SETS = st.lists(PROGRAMS, max_size=3).map(lambda texts: CapabilitySet.of(*texts))


GRANT_SETS = SETS.map(lambda held: GrantSet(held.layers))


@given(
    grants=st.lists(GRANT_SETS, max_size=3),
    own=st.none() | SETS,
    name=st.sampled_from("abc"),
)
def test_a_step_is_admitted_exactly_when_one_grant_and_the_caller_both_admit_it(
    grants: list[GrantSet], own: CapabilitySet | None, name: str
) -> None:
    step = Exec([f"/bin/{name}"])
    expected = any(admits(held, step) for held in grants) and (own is None or admits(own, step))
    assert admits(effective(grants, own, step), step) == expected


DEEP = "/" + "a/" * 2000 + "x"


@pytest.mark.parametrize(
    ("own", "step"),
    [
        ([f"fs.read:/**/{'a/' * 900}b{at}" for at in range(60)], ReadFile(DEEP)),
        ([f"fs.read:/**/{'a*/' * 30}b{at}" for at in range(60)], ReadFile(DEEP)),
        ([f"fs.*:/**/a/**/b{at}" for at in range(1000)], MoveFile(DEEP, DEEP + "y")),
        ([f"exec:/**/{'a/' * 900}b{at}" for at in range(60)], Exec([DEEP])),
    ],
)
def test_a_set_by_which_a_step_takes_long_to_judge_is_refused_before_it_is(own: list[str], step: Step) -> None:
    held = ceiling('[[grants]]\nprincipal = "unix:root"\ncapabilities = ["exec:**", "fs.*:/**"]\n').grants("unix:root")
    with pytest.raises(BadCapability, match=f"over {MAX_EFFORT} comparisons"):
        effective(held, CapabilitySet.of(*own), step)


def test_a_large_set_of_plain_grants_judges_steps() -> None:
    held = ceiling('[[grants]]\nprincipal = "unix:root"\ncapabilities = ["exec:**", "fs.*:/**"]\n').grants("unix:root")
    own = CapabilitySet.of(*(f"fs.read:/srv/app{at}/**" for at in range(4000)), "fs.read:/**/log/*.log")
    assert admits(effective(held, own, ReadFile("/srv/app3999/etc/x")), ReadFile("/srv/app3999/etc/x"))
    assert admits(effective(held, own, ReadFile("/var/log/x.log")), ReadFile("/var/log/x.log"))
    assert not admits(effective(held, own, ReadFile(DEEP)), ReadFile(DEEP))
