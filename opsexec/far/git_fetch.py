"""Refreshing a mirror: one question to the upstream, and a fetch where the answer differs from what is here."""

from __future__ import annotations

import os

from opsexec.far.git_line import Line
from opsexec.far.git_run import Declared, Refused, environment, git

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FETCHED = ("refs/heads/", "refs/tags/")
"""Nothing else of the upstream is mirrored: its pull requests, notes and hidden refs are not the bottle's to see."""


def main(request: dict[str, Any]) -> dict[str, Any]:
    """`{place, hold}` -> `{changed, head, refs}`; raises Refused where the upstream can't be asked.

    `hold`: the answer has the login it was asked over as well, `line`, for the caller to close.
    """
    declared = Declared(request["place"])
    if not request.get("hold"):
        return _refresh(declared, None)
    line = Line(declared, shared=True)
    try:
        return dict(_refresh(declared, line.ready()), line=line)
    except BaseException:  # a signal as well: the line is a process, and ends with its fetch
        line.close()
        raise


def _refresh(declared: Declared, control: str | None) -> dict[str, Any]:
    env = environment(declared, ssh=True, control=control)
    _make(declared, env)
    there, head = _upstream(declared, env)
    here = _mirror(env)
    changed = there != here
    if changed:
        refspecs = [f"+{space}*:{space}*" for space in FETCHED]
        words = ["fetch", "--quiet", "--prune", "--no-tags", "--no-write-fetch-head", "--force", "--refmap="]
        status, _, text = git([*words, "--", declared.url, *refspecs], env)
        if status != 0:
            raise Refused("the upstream can't be fetched from: " + (text or f"git ended with {status}"))
    if head is not None and _head(declared) != head:
        git(["symbolic-ref", "HEAD", head], env)
    return {"changed": changed, "head": head, "refs": len(there)}


def _make(declared: Declared, env: dict[str, str]) -> None:
    if os.path.exists(os.path.join(declared.git_dir, "HEAD")):
        return
    status, _, text = git(["init", "--quiet", "--bare", "--template=", "--initial-branch=main"], env)
    if status != 0:
        raise Refused("the mirror can't be made: " + text)


def _upstream(declared: Declared, env: dict[str, str]) -> tuple[dict[str, str], str | None]:
    """Return the upstream's branches and tags, and its default branch."""
    words = ["ls-remote", "--quiet", "--symref", "--", declared.url, "HEAD", "refs/heads/*", "refs/tags/*"]
    status, out, text = git(words, env)
    if status != 0:
        raise Refused("the upstream can't be reached: " + (text or f"git ended with {status}"))
    refs = {}
    head = None
    for line in out.decode("utf-8", "surrogateescape").splitlines():
        value, _, name = line.partition("\t")
        if value.startswith("ref: ") and name == "HEAD":
            head = value[len("ref: ") :]
        elif name.startswith(FETCHED) and not name.endswith("^{}"):
            refs[name] = value
    return refs, head if head is not None and head.startswith("refs/heads/") else None


def _mirror(env: dict[str, str]) -> dict[str, str]:
    status, out, text = git(["for-each-ref", "--format=%(objectname)%09%(refname)"], env)
    if status != 0:
        raise Refused("the mirror can't be read: " + text)
    pairs = (line.partition("\t") for line in out.decode("utf-8", "surrogateescape").splitlines())
    return {name: value for value, _, name in pairs}


def _head(declared: Declared) -> str:
    """Return the mirror's default branch, from where git keeps it: gitrepository-layout(5)."""
    with open(os.path.join(declared.git_dir, "HEAD"), encoding="utf-8", errors="surrogateescape") as file:
        return file.read().partition("ref: ")[2].strip()
