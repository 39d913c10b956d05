"""What a denial says: what was needed, what was held, and what to do."""

from __future__ import annotations

import pytest

from opsexec.capability import CapabilitySet, Requirement
from opsexec.errors import CapabilityDenied


def test_a_denial_says_what_was_needed_what_was_held_and_what_to_do():
    held = CapabilitySet.of("fs.read:/srv/**", "exec:/usr/bin/id")
    with pytest.raises(CapabilityDenied) as caught:
        held.require(Requirement("fs.read", "/etc/passwd"), host="web1")
    error = caught.value
    assert str(error) == "web1: denied by the caller: needs fs.read:/etc/passwd, held: fs.read:/srv/**"
    assert (error.needed, error.held, error.exit_code) == ("fs.read:/etc/passwd", ("fs.read:/srv/**",), 3)
    assert "fs.read:/etc/passwd" in str(error.hint)


@pytest.mark.parametrize(
    ("path", "shown"),
    [("/srv/a", "nothing"), ("/etc/passwd", "fs.read:/srv/**, nothing"), ("/tmp/a", "fs.read:/srv/**")],
)
def test_a_denial_of_two_sets_shows_what_the_one_holds_that_refuses(path: str, shown: str) -> None:
    held = CapabilitySet.of("fs.read:/srv/**")
    held &= CapabilitySet.of("fs.read:/tmp/**") if path == "/tmp/a" else CapabilitySet.of("exec:/usr/bin/id")
    with pytest.raises(CapabilityDenied) as caught:
        held.require(Requirement("fs.read", path))
    assert str(caught.value).endswith(f"held: {shown}")


def test_who_holds_nothing_on_a_host_is_told_who_gives_grants_there():
    error = CapabilityDenied("a grant", (), layer="agent", reason="unix:dev has no grant on this host")
    assert error.hint == "who runs that host gives one: [[grants]] in its agent's configuration, docs/agent.md"


def test_a_denial_stays_short_however_much_was_held():
    held = CapabilitySet.of(*(f"fs.read:/srv/{n}" for n in range(1000)))
    with pytest.raises(CapabilityDenied, match="and 992 more"):
        held.require(Requirement("fs.read", "/etc/passwd"))
