"""Command lines as systemd and a shell split them, and what hides behind wrappers and `sh -c`."""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

SHELLS = frozenset({"sh", "bash", "dash", "zsh", "ksh", "ash", "busybox"})
RUNNERS = frozenset({
    "env", "sudo", "doas", "nohup", "setsid", "nice", "ionice", "timeout", "stdbuf", "chroot", "runuser", "su", "flock",
    "systemd-run", "time", "command", "exec", "chrt", "taskset", "unshare", "nsenter", "setpriv", "xargs", "caffeinate",
    "eval", "builtin", "then", "do", "else", "if", "while", "until", "{", "(", "!",
})  # fmt: skip
"""Programs and shell words that run what follows them."""

RUNTIMES = frozenset({"podman", "docker", "nerdctl", "podman-remote"})
STARTING = frozenset({"run", "create", "start"})
_TAKES_VALUE = frozenset({
    "--connection", "-c", "--url", "--root", "--runroot", "--log-level", "--cgroup-manager", "--conmon",
    "--events-backend", "--identity", "--namespace", "--network-cmd-path", "--runtime", "--runtime-flag",
    "--storage-driver", "--storage-opt", "--tmpdir", "--volumepath", "--config", "--context", "-H", "--host", "-l",
    "--address", "-n", "-a", "--hooks-dir", "--module", "--out", "--imagestore", "--ssh",
})  # fmt: skip
"""Global options of podman(1), docker(1) and nerdctl(1) whose value is the next word."""
_RUN_FLAGS = frozenset({
    "-d", "-i", "-t", "-P", "-it", "-ti", "-dit", "-itd", "-td", "-dt", "-id", "-di", "-q", "--detach", "--interactive",
    "--tty", "--rm", "--rmi", "--init", "--privileged", "--read-only", "--replace", "--no-healthcheck", "--publish-all",
    "--quiet", "--tls-verify", "--env-host", "--http-proxy", "--no-hosts", "--oom-kill-disable", "--rootfs",
    "--sig-proxy", "--passwd", "--read-only-tmpfs", "--disable-content-trust", "--no-hostname",
})  # fmt: skip
"""Options of `run` and `create` that take no value as a next word; of all others the next word is the value."""
_DEPTH = 4
_WORDS = 4000


class ContainerRun(msgspec.Struct, frozen=True):
    """A `podman run` (create, start) found in a command line. `image`: None for `start`, or when it can't be told."""

    program: str
    verb: str
    image: str | None
    pull: str | None
    authfile: str | None
    words: tuple[str, ...]
    in_shell: bool


def split_exec(value: str) -> tuple[str, list[str]]:
    """Return a command line of systemd.service(5) as its prefixes (`@-:+!|`) and its words; quotes needn't close."""
    text = value.lstrip()
    bare = text.lstrip("@-:+!|")
    return text[: len(text) - len(bare)], _words(bare)


def _words(text: str) -> list[str]:
    words: list[str] = []
    word: list[str] | None = None
    quote = ""
    at = 0
    while at < len(text) and len(words) < _WORDS:
        char = text[at]
        if char == "\\" and at + 1 < len(text):
            at += 1
            word = [] if word is None else word
            word.append({"n": "\n", "t": "\t", "s": " "}.get(text[at], text[at]))
        elif quote:
            if char == quote:
                quote = ""
            else:
                word = [] if word is None else word
                word.append(char)
        elif char in "\"'":
            quote = char
            word = word or []
        elif char.isspace():
            if word is not None:
                words.append("".join(word))
                word = None
        else:
            word = [] if word is None else word
            word.append(char)
        at += 1
    if word is not None:
        words.append("".join(word))
    return words


def base(word: str) -> str:
    """Return a program's name without its directory."""
    return word.rpartition("/")[2]


_SEPARATORS = re.compile(r"&&|\|\||[;|\n&]|\$\(|`|\)")


def script_commands(script: str) -> Iterator[list[str]]:
    """Yield the words of each simple command of a shell script, near enough: what is quoted may be split too."""
    joined = script.replace("\\\n", " ")
    for line in joined.split("\n"):
        if line.lstrip().startswith("#"):
            continue
        # Splitting inside quotes can only find more commands than there are, never fewer.
        for whole in (line, *_SEPARATORS.split(line)):
            if whole and not whole.isspace():
                words = _words(whole)
                if words:
                    yield words


def inner_scripts(words: list[str]) -> list[str]:
    """Return the scripts that a command line hands to a shell with -c."""
    found = []
    for at, word in enumerate(words):
        if base(word) in SHELLS:
            for place in range(at + 1, len(words) - 1):
                if re.fullmatch(r"-[a-z]*c[a-z]*", words[place]):
                    found.append(words[place + 1])
                    break
    return found


def container_runs(words: list[str], *, in_shell: bool = False, depth: int = _DEPTH) -> list[ContainerRun]:
    """Return every container that a command line starts: itself, behind a runner, or in the script of a shell."""
    found = []
    for at, word in enumerate(words):
        if base(word) in RUNTIMES and all(base(w) in RUNNERS or _is_passing(w) for w in words[:at]):
            run = _container_run(words[at:], in_shell)
            if run is not None:
                found.append(run)
            break
        if at == 0 and base(word) not in RUNNERS and not _is_assignment(word):
            break
    if depth > 0:
        for script in inner_scripts(words):
            for command in script_commands(script):
                for run in container_runs(command, in_shell=True, depth=depth - 1):
                    if run not in found:
                        found.append(run)
    return found


def _is_assignment(word: str) -> bool:
    return re.match(r"[A-Za-z_][A-Za-z0-9_]*=", word) is not None


def _is_passing(word: str) -> bool:
    """Between a runner and its program stand options, their values and assignments: anything but a path."""
    return not word.startswith("/")


def _container_run(words: list[str], in_shell: bool) -> ContainerRun | None:
    at = _after_options(words, 1, _TAKES_VALUE.__contains__)
    if at < len(words) and words[at] == "container":
        at += 1
    if at >= len(words) or words[at] not in STARTING:
        return None
    verb = words[at]
    options = words[at + 1 :]
    place = _after_options(options, 0, lambda word: word not in _RUN_FLAGS)
    image = options[place] if verb != "start" and place < len(options) else None
    own = words[1:at] + options[:place]
    return ContainerRun(
        base(words[0]), verb, image, _value(own, "--pull"), _value(own, "--authfile"), tuple(words), in_shell
    )


def _after_options(words: list[str], at: int, takes_value: object) -> int:
    assert callable(takes_value)
    while at < len(words) and words[at].startswith("-"):
        if words[at] == "--":
            return at + 1
        at += 2 if "=" not in words[at] and takes_value(words[at]) and not _joined(words[at]) else 1
    return at


def _joined(word: str) -> bool:
    """A short option may carry its value, like -p80:80."""
    return len(word) > 2 and word[0] == "-" and word[1] != "-" and word not in _RUN_FLAGS


def _value(words: list[str], option: str) -> str | None:
    for at, word in enumerate(words):
        if word == option:
            return words[at + 1] if at + 1 < len(words) else ""
        if word.startswith(option + "="):
            return word[len(option) + 1 :]
    return None


_REDIRECTION = re.compile(r"(?:\d|&)?>{1,2}\|?\s*([^\s;&|<>()]+)")
TEMPORARY = ("/tmp", "/var/tmp", "/private/tmp", "/private/var/tmp", "/dev/shm")
"""Where logs must not be."""


def in_temporary(path: str) -> bool:
    """True for a path in a directory that anyone may write to and a reboot may empty."""
    parts = "/" + "/".join(part for part in path.strip("\"'").split("/") if part not in ("", "."))
    return any(parts == each or parts.startswith(each + "/") for each in TEMPORARY)


def redirections(script: str) -> list[str]:
    """Return the paths a script's output goes to."""
    return [match[1].strip("\"'") for match in _REDIRECTION.finditer(script[: 1 << 20])]


def is_remote_image(reference: str) -> bool:
    """True when a reference may be answered by a registry: its first part is a host, or it has none at all.

    `localhost/name` is only ever a local image; a digest or id alone (64 hex digits) too.
    """
    if re.fullmatch(r"(sha256:)?[0-9a-f]{12,64}", reference):
        return False
    first, slash, _ = reference.partition("/")
    return not (slash and first == "localhost")
