"""Where programs of a nix store come from, over made-up stores and recorded words of nix."""

from __future__ import annotations

import json

import pytest

from agent.services.checks.nix import owners, store_path
from agent.services.probe import Said, Unreadable
from opsexec.testing import Answer, FakeNode
from tests.unit.test_doctor_engine import UNIT, host, look

pytestmark = pytest.mark.anyio
PLACE = "/nix/store/0c8f4xw1k2j3h4g5f6d7s8a9q0p1o2i3-web-1"
SYSTEM = "/nix/store/9z8y7x6w5v4u3t2s1r0q9p8o7n6m5l4k-nixos-system"
UNIT_PATH = "/etc/systemd/system/web.service"
LISTED = {"elements": [{"active": True, "originalUrl": "flake:nixpkgs", "storePaths": [PLACE]}], "version": 2}
NAMED = {"elements": {"web": {"originalUrl": "flake:nixpkgs", "storePaths": [PLACE]}, "other": {}}, "version": 3}
SAYS = {"nix profile list --json": json.dumps(NAMED), "nix-store **": "/nix/store/xyz-web-1.drv\n"}


def link(target: str) -> FakeNode:
    return FakeNode("link", target=target)


async def nix(program: str, files: dict, says: dict | None = None):
    unit = UNIT.replace("/usr/bin/web", program)
    found = await look(host(SAYS if says is None else says, {UNIT_PATH: unit, **files}), only=["nix"])
    return found["nix.source"], found["nix.gc"]


FILES = {
    f"{PLACE}/bin/web": b"\x7fELF",
    f"{SYSTEM}/sw/bin/web": link(f"{PLACE}/bin/web"),
    "/run/current-system": link(SYSTEM),
    "/usr/local/bin/web": link("../lib/web"),
    "/usr/local/lib/web": link(f"{PLACE}/bin/web"),
    "/usr/bin/plain": b"\x7fELF",
}


async def test_a_program_behind_links_is_traced_to_its_store_path_its_profile_and_its_derivation():
    source, gc = await nix("/usr/local/bin/web", FILES)
    assert source.verdict == "info"
    for part in (PLACE, "in the profile as web flake:nixpkgs", "built from /nix/store/xyz-web-1.drv"):
        assert part in source.summary
    assert gc.verdict == "pass"


async def test_a_program_of_the_running_system_says_so():
    source, gc = await nix("/run/current-system/sw/bin/web", FILES)
    assert f"of the running system {SYSTEM}" in source.summary
    assert gc.verdict == "pass"


async def test_a_store_path_that_was_collected_fails():
    files = {path: node for path, node in FILES.items() if not path.startswith(PLACE)}
    source, gc = await nix("/usr/local/bin/web", files)
    assert (gc.verdict, PLACE in gc.summary) == ("fail", True)
    assert source.verdict == "info"


async def test_what_comes_from_no_store_is_skipped():
    source, gc = await nix("/usr/bin/plain", FILES)
    assert {source.verdict, gc.verdict} == {"skip"}


async def test_links_in_a_circle_are_unknown():
    source, gc = await nix("/usr/bin/a", {"/usr/bin/a": link("b"), "/usr/bin/b": link("a")})
    assert {source.verdict, gc.verdict} == {"unknown"}


@pytest.mark.parametrize("answer", [Answer(missing=True), Answer(exit_code=1), "garbage", "[]"])
async def test_without_nix_the_store_path_is_still_told(answer):
    source, _ = await nix("/usr/local/bin/web", FILES, {"nix **": answer, "nix-store **": Answer(missing=True)})
    assert (source.verdict, PLACE in source.summary) == ("info", True)


@pytest.mark.parametrize(("listed", "names"), [(LISTED, ["0 flake:nixpkgs"]), (NAMED, ["web flake:nixpkgs"])])
def test_both_forms_of_a_profile_are_read(listed, names):
    assert owners(Said("nix", 0, json.dumps(listed), ""), PLACE) == names


@pytest.mark.parametrize("text", ["{}", "null", '{"elements": 1}', "{"])
def test_a_profile_nobody_knows_is_unreadable(text):
    with pytest.raises(Unreadable):
        owners(Said("nix", 0, text, ""), PLACE)


@pytest.mark.parametrize("path", ["/nix/store", "/nix/store/", "/nix/stores/a", "/usr/nix/store/a"])
def test_what_is_no_store_path_is_none(path):
    assert store_path(path) is None
