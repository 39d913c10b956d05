"""Forwarding an accepted push out of its quarantine: each ref only from the value that was scanned against."""

from __future__ import annotations

from opsexec.far.git_run import Declared, Refused, environment, git, said

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def main(request: dict[str, Any]) -> dict[str, Any]:
    """`{place, quarantine, updates}` -> `{refs}`; raises Refused with the upstream's own words."""
    declared = Declared(request["place"])
    env = environment(declared, declared.held(request["quarantine"]), ssh=True)
    leases, refspecs = [], []
    for update in request["updates"]:
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
