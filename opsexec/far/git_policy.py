"""What may be pushed where: refs, protected branches, paths that run code for whoever merges them, LFS, submodules."""

from __future__ import annotations

import re

from opsexec.far.git_run import Declared, environment, git

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from opsexec.far.git_objects import Change

DEFAULTS = {
    "protected": ["HEAD", "main", "master"],
    "deletes": True,
    "forced": True,
    "lfs": False,
    "signatures": False,
    "protected_paths": True,
    "max_objects": 500000,
    "max_object_bytes": 100 << 20,
    "max_bytes": 2 << 30,
}  # type: dict[str, Any]
"""`protected`: branches only people push to, HEAD = the upstream's default, `*` for any text. 100 MiB a file is what
forges take."""

REFS = ("refs/heads/", "refs/tags/")

PROTECTED_PATHS = re.compile(
    r"(?:^|/)(?:codeowners|\.lfsconfig)$"
    r"|^(?:\.github/(?:workflows|actions)|\.gitea/workflows|\.forgejo/workflows|\.circleci|\.buildkite|\.gitlab"
    r"|\.woodpecker|\.semaphore|\.tekton)(?:/|$)"
    r"|^\.github/(?:dependabot|renovate)\.[^/]+$"
    r"|^(?:\.gitlab-ci|azure-pipelines|bitbucket-pipelines|cloudbuild|appveyor|\.appveyor|\.travis|\.drone|\.woodpecker"
    r"|\.cirrus|buildspec|wercker|codefresh)\.ya?ml$"
    r"|^jenkinsfile(?:\.[^/]*)?$",
    re.IGNORECASE,
)
"""Paths that a forge acts on by itself, with rights the agent hasn't: its pipelines, and who must review what."""

LFS_POINTER = re.compile(
    r"(?:\s|ext-[^\n]*\n)*version https?://(?:(?:git-lfs|hawser)\.github\.com/spec|git-media\.io/v)/"
)
"""As git-lfs reads one: with any white space and its extensions' lines in front, and by its older names as well."""

LFS_BYTES = 1024
"""A pointer is no longer, with all that stands in front of it."""

_MODULE_URL = re.compile(rb"(?im)(?:^|\])[ \t\r]*url[ \t]*=(.*)$")
_NO_PASSWORD = rb"(?![^/]*:[^/]*@)"
_FINE_URL = re.compile(
    rb"(?:https://" + _NO_PASSWORD + rb"[^\s\"\\]+"
    rb"|ssh://" + _NO_PASSWORD + rb"(?![^/]*@-)[A-Za-z0-9\[][^\s\"\\]*"
    rb"|[A-Za-z0-9_.-]+@[A-Za-z0-9][^\s:\"\\]*:[^\s:\"\\-][^\s:\"\\]*"
    rb"|\.\.?/[^\s\"\\]*)\Z"
)
"""None holds a backslash: behind one at a line's end git goes on with the next line."""

SIGNED = re.compile(
    rb"(?m)^(?:gpgsig|gpgsig-sha256) |^-----BEGIN (?:PGP SIGNATURE|PGP MESSAGE|SSH SIGNATURE|SIGNED MESSAGE)-----"
)
"""What git takes for a signature, in a commit's header or at the end of a tag."""


def settings(declared: Declared) -> dict[str, Any]:
    """Return the declared policy over the defaults."""
    return dict(DEFAULTS, **{name: value for name, value in declared.policy.items() if name in DEFAULTS})


def ref_refusals(declared: Declared, policy: dict[str, Any], quarantine: str, updates: list[str]) -> Iterator[str]:
    """Yield what is wrong with the updates themselves."""
    env = environment(declared, quarantine)
    head = git(["symbolic-ref", "-q", "HEAD"], env)[1].decode("utf-8", "replace").strip()
    empty = not git(["for-each-ref", "--count=1", "--format=%(refname)", "refs/heads/"], env)[1].strip()
    protected = {head if name == "HEAD" else "refs/heads/" + name for name in policy["protected"]}
    if empty:
        protected = set()  # there is nothing yet that could be protected
    for update in updates:
        old, new, ref = update.split(" ", 2)
        gone, fresh = not new.strip("0"), not old.strip("0")
        if not ref.startswith(REFS):
            yield "only branches and tags pass the gate, not refs such as notes, replacements or pull requests"
        elif _protected(ref, protected):
            what = "deleted" if gone else "pushed to"
            yield f"a protected branch isn't {what} from here: push another branch, and let a person merge it"
        elif gone:
            if not policy["deletes"]:
                yield "deleting refs isn't allowed here"
        elif ref.startswith("refs/tags/") and not fresh:
            yield "a tag that exists isn't moved"
        else:
            status, kind, _ = git(["cat-file", "-t", new + "^{}"], env)
            if status != 0 or kind.strip() != b"commit":
                yield "a ref must lead to a commit, not to another kind of object"
            elif not fresh and not policy["forced"] and git(["merge-base", "--is-ancestor", old, new], env)[0] != 0:
                yield "forced pushes aren't allowed here"


def _protected(ref: str, names: set[str]) -> bool:
    """True where a protected name is this ref's, or a pattern is that it matches; `*` stands for slashes too."""
    from fnmatch import fnmatchcase

    return any(fnmatchcase(ref, name) if "*" in name else ref == name for name in names)


def path_refusal(policy: dict[str, Any], change: Change) -> str | None:
    """Return what is wrong with a path being changed or removed, None where nothing is."""
    path = change.path.decode("utf-8", "replace")
    if policy["protected_paths"] and PROTECTED_PATHS.search(path):
        return "it is acted on by the forge itself (pipelines, owners): a person has to commit that"
    return None


def blob_refusal(policy: dict[str, Any], content: bytes) -> str | None:
    """Return what is wrong with a file's content wherever it is, None where nothing is."""
    if not policy["lfs"] and LFS_POINTER.match(content[:LFS_BYTES].decode("utf-8", "replace")):
        return "it is a Git LFS pointer, whose content would go around the gate"
    return None


def modules(change: Change) -> bool:
    """True where git reads submodules' addresses of what stands at this path."""
    return change.path.rpartition(b"/")[2].lower() == b".gitmodules"


def modules_refusal(content: bytes) -> str | None:
    """Return what is wrong with the addresses of submodules, None where nothing is."""
    for found in _MODULE_URL.finditer(content):
        if not _FINE_URL.match(found[1].strip(b" \t\r").strip(b'"')):
            return "it names a submodule by an address that isn't https, ssh or relative, or that holds a password"
    return None
