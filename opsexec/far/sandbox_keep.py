"""The process outside a sandbox: gives it its limits, starts bubblewrap, watches its files, and takes away after it.

Runs as `main(["NAME", "processes=N", "memory=BYTES", "cpus=SHARE", "bytes=N", "files=N", "tree=PATH", ..., "--",
"bwrap", ...])`. Whoever ends this process ends the sandbox: bubblewrap is told to die with its parent.
"""

from __future__ import annotations

import errno
import os
import resource
import select

from opsexec.far import syscall_filter
from opsexec.far.launch import MARKER
from opsexec.far.sandbox_groups import LIMITS, Groups, is_root
from opsexec.far.sandbox_proc import covered
from opsexec.far.sandbox_room import Room
from opsexec.far.sandbox_scope import Scope, better

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Mapping, Sequence
    from types import FrameType
else:
    import _signal as signal  # the module behind `signal`, which costs 5 ms of a start

LOOK_EVERY_S = 0.2
OVER = 122
"""Exit status of a sandbox that was ended for its files."""
NOT_STARTED = 127
KEYS = (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)
"""A terminal's signals: for the program, not for its keeper."""
PYTHONS_OWN = (signal.SIGPIPE, signal.SIGXFSZ)
"""What Python ignores, and a program must not find ignored."""
LEAVE_MEMORY = 0.8
"""The most of the machine's memory that one sandbox's limit may be."""


class Wanted:
    """What the caller asks for. A number that is 0: without that limit."""

    __slots__ = ("name", "numbers", "trees")

    def __init__(self, words: Sequence[str]) -> None:
        self.name = words[0]
        self.numbers = {}  # type: dict[str, float]
        self.trees = []  # type: list[str]
        for word in words[1:]:
            key, _, value = word.partition("=")
            if key == "tree":
                self.trees.append(value)
            else:
                self.numbers[key] = float(value)
        memory = self.numbers.get("memory")
        if memory:
            most = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * LEAVE_MEMORY
            self.numbers["memory"] = min(memory, most)


def main(argv: Sequence[str]) -> None:
    """Keep one sandbox to its end, and end as it ended."""
    middle = argv.index("--")
    wanted = Wanted(argv[:middle])
    words = list(argv[middle + 1 :])
    limits = {key: wanted.numbers.get(key, 0) for key in LIMITS}
    by = better()
    groups = Groups(wanted.name, limits) if by is None else Scope(wanted.name, limits, by)
    try:
        status = _keep(wanted, words, groups)
        killed = groups.killed() if status else 0
        if killed:
            _say(wanted.name, f"its memory was used up: the kernel has ended {killed} of its processes")
    finally:
        for each in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(each, signal.SIG_IGN)  # the sandbox is gone, and its number may be another's soon
        groups.end()
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(os.WEXITSTATUS(status))


def _keep(wanted: Wanted, words: list[str], groups: Groups | Scope) -> int:
    # A signal that comes before the sandbox is there must not be lost, nor end us before the groups are removed.
    ending = (signal.SIGTERM, signal.SIGHUP)
    signal.pthread_sigmask(signal.SIG_BLOCK, ending)
    for number in KEYS:
        signal.signal(number, signal.SIG_IGN)
    most_bytes, most_files = int(wanted.numbers.get("bytes", 0)), int(wanted.numbers.get("files", 0))
    rooms = [Room(tree, most_bytes, most_files) for tree in wanted.trees if most_bytes or most_files]
    pid = os.fork()
    if pid == 0:
        try:
            groups.enter()
            if groups.failed:
                _say(wanted.name, f"without a control group of its own: {groups.failed}")
            _become(wanted.name, words, wanted.numbers, groups)
        except OSError as error:
            _say(wanted.name, f"can't be started: {error.strerror}: {error.filename or words[0]}")
        finally:
            os._exit(NOT_STARTED)

    def end(_number: int, _frame: FrameType | None) -> None:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:  # it ended just now
            return

    for number in ending:
        signal.signal(number, end)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ending)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    return _watch(pid, rooms, wanted.name)


def _become(name: str, words: list[str], numbers: Mapping[str, float], groups: Groups | Scope) -> None:
    """Become bubblewrap, inside the groups and under the filter."""
    for number in (*KEYS, *PYTHONS_OWN):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    if numbers.get("expendable"):
        _expendable()
    if numbers.get("processes") and "processes" not in groups.held and is_root():
        _say(name, "its processes have no bound: no control group can be made, and root is under no limit of its own")
    if numbers.get("memory") and "memory" not in groups.held:
        # Each process for itself, which is all that there is without a group of its own.
        most = int(numbers["memory"])
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    pinned = bool(numbers.get("cpus")) and "cpus" not in groups.held
    if pinned:
        _stay_on(-int(-numbers["cpus"] // 1))
    os.closerange(3, 1 << 16)
    # bubblewrap's own argv and environment can be read inside: they say nothing of the host.
    middle = words.index("--")
    options = words[1:middle]
    if "--proc" in options:
        after = options.index("--proc") + 2
        options[after:after] = covered()
    argv = [words[0], "--args", _readable("\0".join(options).encode("utf-8", "surrogateescape"))]
    code = syscall_filter.program(pinned=pinned)
    if code is not None:
        argv += ["--seccomp", _readable(code)]
    mark = {each: os.environ[each] for each in (MARKER, "PATH") if each in os.environ}
    os.execvpe(words[0], argv + words[middle:], mark)


def _readable(data: bytes) -> str:
    """Return the descriptor of a pipe that holds this, which is less than a pipe may hold, and then ends."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    if os.write(writing, data) != len(data):
        raise OSError(errno.E2BIG, os.strerror(errno.E2BIG))
    os.close(writing)
    os.set_inheritable(reading, True)
    return str(reading)


def _stay_on(processors: int) -> None:
    """Run on that many of the processors there are, other ones than the sandboxes before and after this one."""
    there = sorted(os.sched_getaffinity(0))
    first = os.getpid() % len(there)
    os.sched_setaffinity(0, (there[first:] + there[:first])[:processors])


def _expendable() -> None:
    """When the machine itself runs out of memory, this goes first."""
    with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("1000")


def _watch(pid: int, rooms: list[Room], name: str) -> int:
    """Wait for the end; when files are over their bound, bring it about. Returns the wait status."""
    handle = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else -1
    over = None
    while True:
        timeout = LOOK_EVERY_S if rooms and over is None else None
        if handle >= 0:
            select.select([handle], [], [], timeout)
            ended, status = os.waitpid(pid, os.WNOHANG)
        elif timeout is None:
            ended, status = os.waitpid(pid, 0)
        else:
            select.select([], [], [], timeout)
            ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            if over is None:
                return status
            _say(name, f"{over}: ended")
            return OVER << 8
        over = over or _first_over(rooms, pid)
        if over is not None:
            os.kill(pid, signal.SIGKILL)  # before a word of it: those wait for whoever reads


def _first_over(rooms: list[Room], pid: int) -> str | None:
    for room in rooms:
        try:
            said = room.over(pid)
        except OSError as error:  # a home that can't be watched is over its bound
            said = f"its files can't be watched ({error.strerror})"
        if said is not None:
            return said
    return None


def _say(name: str, text: str) -> None:
    select.select([], [2], [])  # the program may have set this same pipe not to block, and filled it
    os.write(2, f"sandbox {name}: {text}\n".encode("utf-8", "backslashreplace"))
