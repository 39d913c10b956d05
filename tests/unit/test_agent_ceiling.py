"""The ceiling: whose grants, under which limits, and that two grants never add up."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.ceiling import Ceiling, GrantSet, effective
from agent.config import parse_config
from opsexec import CapabilitySet, Exec
from opsexec.errors import CapabilityDenied
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
