"""As whom and how long a set lets a step run, and what it says of itself."""

from __future__ import annotations

import re

import pytest

from opsexec.capability import CapabilitySet, Requirement
from opsexec.errors import CapabilityDenied


def test_a_limit_may_be_reached_and_without_one_any_is_taken() -> None:
    assert CapabilitySet.of(max_timeout_s=10).clamp_timeout(10) == 10
    assert CapabilitySet.of().clamp_timeout(99) == 99
    assert (CapabilitySet.of(max_output_bytes=9) & CapabilitySet.of(max_output_bytes=5)).max_output_bytes == 5


def test_a_step_becomes_the_users_that_every_layer_names_and_no_other() -> None:
    held = CapabilitySet.of("exec:**", run_as=["deploy", "root"])
    for user in (None, "deploy", "root"):
        held.require_user(user)
        (held & CapabilitySet.of(run_as=["*"])).require_user(user)
    for narrowed, user in (
        (held, "daemon"), (held, "*"), (held, ""), (CapabilitySet.of("exec:**"), "root"),
        (held & CapabilitySet.of(run_as=["deploy"]), "root"), (CapabilitySet.of(run_as=["*"]) & held, "daemon"),
    ):  # fmt: skip
        with pytest.raises(CapabilityDenied, match=f"run_as:{re.escape(user)}"):
            narrowed.require_user(user)
        narrowed.require_user(None)


def test_sets_that_differ_are_not_equal_and_each_says_what_it_holds() -> None:
    one, other = CapabilitySet.of("exec:**", "facts:*"), CapabilitySet.of("exec:**", run_as=["a"])
    assert one != other
    assert one == CapabilitySet.of("facts:*", "exec:**")
    assert one != "exec:**"
    one.require(Requirement("exec", ("/bin/a",)))
    assert repr(one) == "CapabilitySet(exec:**, facts:*)"
    assert (one & CapabilitySet.nothing()).describe("facts") == ["facts:*", "nothing"]
    assert (one & other).describe() == ["exec:**", "exec:** | facts:*"]
    assert CapabilitySet.of("fs.read:/a", "fs.*:/b", "exec:**").path_layers("fs.write") == (("/b",),)
