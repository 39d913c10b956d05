"""Starting one process in a session of its own, on pipes or on a terminal."""

from __future__ import annotations

import os

from opsexec.far.launch import kept_environment
from opsexec.far.message import FarError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Sequence

    from opsexec.far.launch import Launch
else:
    import _signal as signal  # the module behind `signal`, which costs 5 ms of a session's start


def spawn_on_pipes(launch: Launch, null: int) -> tuple[int, int, int, int]:
    """Start the program on pipes; returns (pid, its stdin or -1, its stdout, its stderr). Raises FarError.

    `null`: an open /dev/null, the stdin of a program that is given none.
    """
    wants_stdin = bool(launch.stdin) or launch.streams_stdin
    (out, stdout), (err, stderr), *third = pipes(3 if wants_stdin else 2)
    stdin, into = third[0] if third else (null, -1)
    try:
        pid = _spawn(launch, stdin, stdout, stderr)
    except BaseException:  # nobody else knows these pipes yet
        for fd in (out, err, into):
            if fd >= 0:
                os.close(fd)
        raise
    finally:
        for fd in (stdout, stderr) if stdin == null else (stdout, stderr, stdin):
            os.close(fd)
    for fd in (into, out, err):
        if fd >= 0:
            os.set_blocking(fd, False)  # a child that lives on holds the pipes: reading one must not wait for it
    return pid, into, out, err


def pipes(count: int) -> list[tuple[int, int]]:
    """Return that many pipes, (reading end, writing end). Raises OSError, and then none is left open."""
    made = []  # type: list[tuple[int, int]]
    try:
        for _ in range(count):
            made.append(os.pipe())
    except OSError:
        for ends in made:
            for fd in ends:
                os.close(fd)
        raise
    return made


def _spawn(launch: Launch, stdin: int, stdout: int, stderr: int) -> int:
    program = launch.program()
    environment = launch.environment(kept_environment())
    actions = [(os.POSIX_SPAWN_DUP2, stdin, 0), (os.POSIX_SPAWN_DUP2, stdout, 1), (os.POSIX_SPAWN_DUP2, stderr, 2)]
    return _start(launch, program, environment, actions)


def spawn_on_terminal(launch: Launch) -> tuple[int, int, int]:
    """Start the program on a new terminal; returns (pid, the terminal's own end, the same again). Raises FarError."""
    program = launch.program()
    environment = launch.environment(kept_environment())
    main, other = os.openpty()
    again = -1
    try:
        again = os.dup(main)
        resize(main, launch.columns, launch.rows)
        name = os.ttyname(other)
        # A session leader without a terminal gets the first one it opens: that is why fd 0 is opened, not inherited.
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, name, os.O_RDWR, 0),
            (os.POSIX_SPAWN_DUP2, 0, 1),
            (os.POSIX_SPAWN_DUP2, 0, 2),
        ]
        pid = _start(launch, program, environment, actions)
    except BaseException:  # nobody else knows this terminal yet
        for fd in (main, again):
            if fd >= 0:
                os.close(fd)
        raise
    finally:
        os.close(other)
    for fd in (main, again):
        os.set_blocking(fd, False)
    return pid, main, again


def _start(launch: Launch, program: str, environment: dict[str, str], actions: Sequence[tuple[object, ...]]) -> int:
    """Changes and restores this process's working directory: sessions are single-threaded."""
    launch.enter()
    try:
        return os.posix_spawn(
            program,
            list(launch.argv),
            environment,
            file_actions=actions,
            setsid=True,
            setsigmask=(),
            setsigdef=(signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGQUIT),
        )
    except OSError as error:
        text = f"can't start {program}: {os.strerror(error.errno or 0)}"
        raise FarError("no_start", text, program) from error
    finally:
        os.chdir("/")


def resize(terminal: int, columns: int, rows: int) -> None:
    """Set a terminal's size in characters; the program on it gets SIGWINCH."""
    import fcntl
    import struct
    import termios

    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
