"""Forwarding an accepted push out of its quarantine: each ref only from the value that was scanned against."""

from __future__ import annotations

from opsexec.far.git_line import Line
from opsexec.far.git_run import Declared, Refused, environment, git, said, told

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def main(request: dict[str, Any]) -> dict[str, Any]:
    """`{place, quarantine, updates, line}` -> `{refs}`; raises Refused with the upstream's own words.

    Without a quarantine it logs in, waits for the word on its input, and answers `{refs: 0}` where none comes. `line`:
    it uses the login that a fetch holds open instead.
    """
    declared = Declared(request["place"])
    if request["quarantine"] is not None:
        return _push(declared, request["quarantine"], request["updates"], None)
    if request.get("line"):
        return _told(declared, request["updates"], declared.line())
    with Line(declared) as line:
        return _told(declared, request["updates"], line.control)


def _told(declared: Declared, updates: list[str], control: str | None) -> dict[str, Any]:
    word = told()
    if word is None:
        return {"refs": 0}
    if word["updates"] != list(updates):
        raise Refused("the push isn't the one that was announced")
    return _push(declared, word["quarantine"], word["updates"], control)


def _push(declared: Declared, quarantine: str, updates: list[str], control: str | None) -> dict[str, Any]:
    env = environment(declared, declared.held(quarantine), ssh=True, control=control)
    leases, refspecs = [], []
    for update in updates:
        old, new, ref = update.split(" ", 2)
        leases.append("--force-with-lease={}:{}".format(ref, old.strip("0") and old))
        refspecs.append("{}:{}".format(new if new.strip("0") else "", ref))
    words = ["push", "--porcelain", "--no-verify", "--no-signed", "--thin"]
    if len(refspecs) > 1:
        words.append("--atomic")
    status, out, text = git([*words, *leases, "--", declared.url, *refspecs], env)
    if status != 0:
        rows = said(b"\n".join(line for line in out.split(b"\n") if line.startswith(b"!"))).replace("\t", " ")
        raise Refused("\n".join(("the upstream refused it:", *filter(None, (text, rows)))))
    return {"refs": len(refspecs)}
