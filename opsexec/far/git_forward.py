"""Forwarding an accepted push out of its quarantine: each ref only from the value that was scanned against."""

from __future__ import annotations

from opsexec.far.git_run import Declared, Refused, environment, git, said, told

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LEAVE_S = 2.0


def main(request: dict[str, Any]) -> dict[str, Any]:
    """`{place, quarantine, updates}` -> `{refs}`; raises Refused with the upstream's own words.

    Without a quarantine it logs in, waits for the word on its input, and answers `{refs: 0}` where none comes.
    """
    declared = Declared(request["place"])
    if request["quarantine"] is not None:
        return _push(declared, request["quarantine"], request["updates"], None)
    with _Line(declared) as line:
        word = told()
        if word is None:
            return {"refs": 0}
        if word["updates"] != list(request["updates"]):
            raise Refused("the push isn't the one that was announced")
        return _push(declared, word["quarantine"], word["updates"], line.control)


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


class _Line:
    """A login at the upstream, made while the push is being scanned. Nothing is asked for over it before that is done.

    Where it doesn't come about, git logs in by itself later, and says why that fails.
    """

    def __init__(self, declared: Declared) -> None:
        import os
        import subprocess
        import tempfile
        from urllib.parse import urlsplit

        self._directory = tempfile.TemporaryDirectory(prefix="git-")
        self.control = os.path.join(self._directory.name, "s")
        parts = urlsplit(declared.url)
        words = [*declared.ssh_words(self.control), "-M", "-N"]
        if parts.port is not None:
            words += ["-p", str(parts.port)]
        if parts.username is not None:
            words += ["-l", parts.username]
        null = subprocess.DEVNULL
        env = environment(declared)
        self._process = subprocess.Popen(
            [*words, "--", parts.hostname or ""], env=env, stdin=null, stdout=null, stderr=null, cwd="/"
        )

    def __enter__(self) -> _Line:
        return self

    def __exit__(self, *exc: object) -> None:
        import subprocess

        self._process.terminate()
        try:
            self._process.wait(LEAVE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._directory.cleanup()
