"""`fake_mac`: this machine's files under a layer of the test's, a kernel that is called Darwin, and `fake_launchctl`.

Everything else is real: files, processes, `ops-agent`'s command line, an agent and its ceiling. What is written goes
to the layer, and with it; processes live in a PID namespace that ends with it.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import opsexec.far.facts
from tests.parts import fake_launchctl_program
from tests.parts.waiting import eventually_now

REPOSITORY = Path(__file__).parents[2]
DARWIN = """

_kernel = READERS["kernel"]
READERS["kernel"] = lambda: {**_kernel(), "system": "Darwin"}
"""
"""What the stand-in for a mac adds to the far half's facts."""
LAYER = """set -e
mount -t tmpfs tmpfs {held}
mkdir {held}/upper {held}/work {held}/root
mount -t overlay overlay -o lowerdir=/,upperdir={held}/upper,workdir={held}/work,redirect_dir=on {held}/root
cd {held}/root
mount --rbind /dev dev
mount -t proc proc proc
for each in {trees}; do mountpoint -q "$each" && mount --rbind "$each" ".$each"; done
mkdir private private/tmp
for each in etc var; do mv "$each" "private/$each"; ln -s "private/$each" "$each"; done
mv tmp tmp.before
ln -s private/tmp tmp
mount -t tmpfs tmpfs private/tmp
for each in {own}; do test -e ".$each" || {{ mkdir -p ".$each"; mount --rbind "$each" ".$each"; }}; done
{{ echo '#!{python} -I'; cat {program}; }} > usr/local/sbin/launchctl
chmod 755 usr/local/sbin/launchctl
rm -rf usr/bin/podman run/ops-agent var/lib/ops-agent etc/ops-agent
mkdir -p Library/LaunchDaemons Library/LaunchAgents Library/Logs etc/ops-agent/services Users/me/Library/LaunchAgents
chmod 755 Library Library/* etc/ops-agent etc/ops-agent/services
cp .{facts} tmp/facts.py
printf %s {darwin} >> tmp/facts.py
mount --bind tmp/facts.py .{facts}
echo ready
exec {python} -c {first}
"""


FIRST = """import os, time
while True:
    try:
        os.wait()
    except ChildProcessError:
        time.sleep(0.05)
"""
"""The namespace's first process: it reaps what nobody else does."""


def missing() -> str | None:
    """Why there can be none here; None when there can."""
    words = ["unshare", "--mount", "--pid", "--fork", "--propagation", "private", "true"]
    if shutil.which("nsenter") is None or shutil.which("unshare") is None:
        return "no nsenter and unshare"
    if subprocess.run(words, capture_output=True, check=False).returncode != 0:
        return "no namespaces of one's own (root is needed)"
    return None


class FakeMac:
    """One. `root`: where its files are seen from inside its mount namespace."""

    def __init__(self, pid: int, root: str) -> None:
        self.started: list[subprocess.Popen[bytes]] = []
        self._enter = ["nsenter", "-t", str(pid), "-m", "-p", "chroot", root]

    def login(self, directory: Path) -> str:
        """Return a line of sshd's configuration whose logins come in there. `directory`: where its script may stand."""
        script = directory / "enter-the-mac"
        script.write_text(f'#!/bin/sh\nexec {shlex.join(self._enter)} /bin/sh -c "$SSH_ORIGINAL_COMMAND"\n')
        script.chmod(0o755)
        return f"ForceCommand {script}"

    def tried(self, *argv: str, stdin: str | None = None, within_s: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a command there, and return how it ended."""
        return subprocess.run(
            [*self._enter, *argv], input=stdin, capture_output=True, text=True, check=False, timeout=within_s
        )

    def run(self, *argv: str) -> str:
        """Run a command there that has to end well, and return what it said."""
        done = self.tried(*argv)
        assert done.returncode == 0, f"{argv}: {done.returncode} {done.stdout}{done.stderr}"
        return done.stdout

    def write(self, path: str, text: str | bytes, mode: str = "0644") -> None:
        """Put a file there."""
        data = text.encode() if isinstance(text, str) else text
        script = 'mkdir -p "$(dirname "$1")" && cat >"$1" && chmod "$2" "$1"'
        done = subprocess.run(
            [*self._enter, "sh", "-c", script, "sh", path, mode], input=data, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr

    def exists(self, path: str) -> bool:
        """Whether something stands there."""
        return self.tried("test", "-e", path).returncode == 0

    def background(self, *argv: str) -> None:
        """Start a command there; it ends with the mac."""
        self.started.append(subprocess.Popen([*self._enter, *argv], stdin=subprocess.DEVNULL))

    def ops(self, *words: str, rc: int | None = 0) -> dict[str, Any]:
        """Run a command of `ops-agent` there, and return its JSON; `stderr` with it."""
        argv = ["env", "-C", str(REPOSITORY), sys.executable, "-m", "agent", *words, "--json"]
        done = self.tried(*argv, within_s=120)
        assert "Traceback" not in done.stderr, done.stderr
        assert rc is None or done.returncode == rc, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        said = json.loads(done.stdout) if done.stdout.startswith("{") else {}
        return {**said, "stderr": done.stderr}

    def launchctl(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run its launchctl."""
        return self.tried("launchctl", *words)

    def asked(self) -> list[str]:
        """What launchctl was asked so far, but for what only looks."""
        done = self.tried("cat", str(fake_launchctl_program.CALLS)).stdout.splitlines()
        return [each for each in done if each.split()[0] not in ("print", "print-disabled", "managername")]

    def set(self, **settings: Any) -> None:
        """Have its launchctl behave otherwise: `ends_s`, `busy_s` (seconds), `garbage`."""
        self.write(str(fake_launchctl_program.SETTINGS), json.dumps(settings))


@contextlib.contextmanager
def fake_mac() -> Iterator[FakeMac]:
    """One of the test's own; nothing of it outlives the test."""
    with tempfile.TemporaryDirectory(prefix="fake-mac-") as held:
        program = Path(fake_launchctl_program.__file__)
        own = dict.fromkeys([str(REPOSITORY), sys.prefix, sys.base_prefix])
        trees = own | dict.fromkeys(str(each) for each in REPOSITORY.parents if each != Path("/"))
        script = LAYER.format(
            held=held, trees=" ".join(sorted(trees)), own=" ".join(sorted(own)), facts=opsexec.far.facts.__file__,
            darwin=shlex.quote(DARWIN), program=shlex.quote(str(program)), python=sys.executable,
            first=shlex.quote(FIRST),
        )  # fmt: skip
        words = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]
        words += ["sh", "-c", script]
        started: list[subprocess.Popen[bytes]] = []
        holder = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            assert holder.stdout is not None
            assert holder.stderr is not None
            if holder.stdout.readline().strip() != "ready":
                raise AssertionError(f"no fake mac: {holder.stderr.read()}")
            children = Path(f"/proc/{holder.pid}/task/{holder.pid}/children")
            eventually_now(lambda: children.read_text().split(), within_s=10, what="the namespace's first process")
            mac = FakeMac(int(children.read_text().split()[0]), f"{held}/root")
            started = mac.started
            yield mac
        finally:
            holder.kill()
            holder.communicate(timeout=20)
            for each in started:
                each.wait(20)
