"""What an error of the far side is on this side: one table from FarError codes to the error family."""

from __future__ import annotations

from collections.abc import Sequence

from opsexec.errors import (
    BadStep,
    CapabilityDenied,
    HostUnsuitable,
    OpsError,
    PathNotFound,
    PrivilegeDenied,
    ProgramNotFound,
    ProtocolError,
    StepFailed,
)

HINTS: dict[str, str] = {
    "not_found": "check the path, or make its directory first (mkdir, or parents of a write)",
    "not_executable": "set its mode, or name another program",
    "no_cwd": "make the directory first, or leave cwd out",
    "no_start": "check the program's format and interpreter line, and the host's process limit",
    "operation_died": "look at the host's kernel log: it may be out of memory",
    "os": "look at the host's kernel log",
    "permission": "use run_as with a user who may, or change the owner",
    "exists": "remove it first if it should be replaced",
    "not_directory": "check the path: a file stands where a directory is needed",
    "is_directory": "name a file",
    "not_regular": "only regular files can be read or written as files; use Exec for devices and pipes",
    "not_empty": "use recursive if the whole tree should go",
    "too_large": "raise max_bytes, read a part with offset, or Pull the file",
    "no_space": "free space on the host's file system; the old file is intact",
    "read_only": "the file system is mounted read-only",
    "no_such_user": "create the user or group first, or give its number",
    "is_link": "set the mode of what the link points to",
    "mount": "unmount it first: a tree is removed on one mount only",
    "loop": "a link on the way points to itself; read the links one by one with Stat",
    "raced": "something on the host keeps replacing it; stop that first",
    "busy": "something on the host uses it",
    "too_deep": "copy the deep part by itself",
    "too_many": "copy the parts of the tree one by one",
    "exhausted": "the host is out of memory or file descriptors",
    "io": "look at the host's kernel log",
}
"""What to do about each code that becomes a StepFailed."""


ANSWER_LIMIT = 8 << 20
"""Bytes of an answer, beside a file's content that was asked for: facts of a large host are some 100 KiB."""


MAX_TEXT = 10_000
"""Characters of an error's sentence or detail that are kept: two paths are 8190 at most."""


def answer_limit(operation: str, args: Sequence[bytes]) -> int:
    """Return the longest answer an operation with these arguments may have, in bytes."""
    return ANSWER_LIMIT + (int(args[3]) if operation == "read_file" else 0)


def as_error(code: str, text: str, details: Sequence[str] = (), host: str | None = None) -> OpsError:
    """Return the error for a FarError's code, sentence and details; an unknown code is a ProtocolError.

    `denied` carries the need (or a program) and then what was held as its details; `not_found` of a program,
    where it was looked for. What is longer than any of ours is cut: a host's error would fill screen and journal.
    """
    code, text, *details = (
        each if len(each) <= MAX_TEXT else f"{each[:MAX_TEXT]}..." for each in (code, text, *details)
    )
    if code == "denied":
        needed = details[0] if details else text
        if needed.startswith("/"):
            needed = f"exec:{needed}"
        return CapabilityDenied(needed, tuple(details[1:]), host=host, layer="host", reason=text)
    if code == "bad_path":
        return BadStep(text, host=host, hint="give an absolute path of usual length")
    if code == "privilege":
        return PrivilegeDenied(text, host=host, hint="allow it in sudoers, or log in as that user")
    if code == "unsuitable":
        return HostUnsuitable(text, host=host, hint=details[0] if details else None)
    if code == "not_found" and details and details[0].startswith("/"):
        spaced = " " in details[0].rpartition("/")[2].strip()
        do = "its name has a space: give each word by itself" if spaced else "install it"
        return ProgramNotFound(text, host=host, hint=f"{do}; looked for " + ", ".join(details[:8]))
    if code == "not_found":
        return PathNotFound(text, host=host, hint=HINTS[code])
    if code in HINTS:
        return StepFailed(text, host=host, hint=HINTS[code])
    hint = "both sides must be the same version"
    return ProtocolError(f"the host answered {code}: {text}", host=host, hint=hint)
