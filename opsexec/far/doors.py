"""First program of a sandbox: takes the environment from stdin, opens the doors, starts the program and stays as PID 1.

A door is a port of the sandbox's own loopback that leads to one unix socket. The environment comes first on stdin, as a
length of 8 hex digits and names and values between NUL bytes: so it stands on no argv, and in no process outside.
Runs as `python3 -I -S -c <this file> CWD OPEN_FILES FILE_BYTES PROCESSES DOORS HOW -- ARGV...`; DOORS is `-` or
`PORT=SOCKET,...`; HOW is `alone` where the program is to be PID 1 itself.
"""

from __future__ import annotations

import os
import socket
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    import signal
else:
    import _signal as signal  # the module behind `signal`, which costs 5 ms of a start

BACKLOG = 128
BLOCK = 65536
NOT_STARTED = 127


def read_environment(fd: int) -> dict[bytes, bytes]:
    """Read exactly the header: what follows on stdin is the program's."""
    size = int(_read_exactly(fd, 8), 16)
    words = _read_exactly(fd, size).split(b"\0") if size else []
    return dict(zip(words[::2], words[1::2]))


def _read_exactly(fd: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        block = os.read(fd, size - len(data))
        if not block:
            raise EOFError("the environment ends early")
        data += block
    return data


def open_doors(doors: str) -> list[tuple[socket.socket, str]]:
    """Listen on each port before the program starts, so that it can't come first."""
    found = []
    for door in doors.split(",") if doors != "-" else ():
        port, _, path = door.partition("=")
        # Named, TCP is what asyncio turns Nagle off for: else the second write of an answer waits 40 ms for an ACK.
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", int(port)))
        listener.listen(BACKLOG)
        found.append((listener, path))
    return found


def keep(program: int, doors: list[tuple[socket.socket, str]]) -> None:
    """Be the sandbox's first process: hold the doors, reap whoever is orphaned, and end as the program ends."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    _close_to_others()
    if not doors:
        while not _reaped(program, 0):
            continue
    import asyncio

    async def both() -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGCHLD, _reaped, program, os.WNOHANG)
        _reaped(program, os.WNOHANG)
        await serve(doors)

    asyncio.run(both())


def _reaped(program: int, how: int) -> bool:
    """Take who ended; when it is the program, this ends too, and the kernel ends what is left."""
    while True:
        try:
            pid, status = os.waitpid(-1, how)
        except ChildProcessError:
            os._exit(NOT_STARTED)
        if pid == program:
            os._exit(128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))
        if pid == 0:
            return False


def _close_to_others() -> None:
    """Let no program of the same user look into this process or trace it (PR_SET_DUMPABLE, prctl(2))."""
    try:
        import ctypes
    except ImportError:  # a small Python; there is nothing in here that the program doesn't have itself
        return
    ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)


async def serve(doors: list[tuple[socket.socket, str]]) -> None:
    """Carry bytes between each door and its socket, for ever."""
    import asyncio

    for listener, path in doors:
        await asyncio.start_server(_carrier(path), sock=listener, limit=BLOCK)
    await asyncio.Event().wait()


def _carrier(path: str):  # type: ignore[no-untyped-def] # the annotation would import typing at the start
    import asyncio

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_unix_connection(path, limit=BLOCK)
        except OSError:  # nobody behind the door: the caller sees its connection end
            writer.close()
            return
        await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))
        for each in (writer, far_writer):
            each.close()

    return carry


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            data = await reader.read(BLOCK)
            if not data:
                break
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except OSError:  # one side is gone; the other is told by the close that follows
        writer.close()


def limit(open_files: int, file_bytes: int, processes: int) -> None:
    """Lower this process's limits; what it starts inherits them. `processes`: 0 leaves that one as it is.

    Processes are counted in this user namespace alone (Linux 5.14), so the limit is set here and not outside. The
    kernel doesn't hold a user to it who is root outside.
    """
    import resource

    for which, wanted in (
        (resource.RLIMIT_NOFILE, open_files),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_CORE, 0),
        *([(resource.RLIMIT_NPROC, processes)] if processes else ()),
    ):
        _, hard = resource.getrlimit(which)
        value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(which, (value, value))


def main(argv: list[str]) -> None:
    """Become the program, or the one beside it; says why on stderr and exits 127 when that can't be."""
    cwd, open_files, file_bytes, processes, doors, alone, _, *program = argv
    environment = read_environment(0)
    opened = open_doors(doors)
    if alone != "alone":
        pid = os.fork()
        if pid:
            keep(pid, opened)
        for listener, _path in opened:
            listener.close()
    try:
        os.chdir(cwd)
        limit(int(open_files), int(file_bytes), int(processes))
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)  # Python ignores them; a program must not find them ignored
        os.execvpe(program[0], program, environment)
    except OSError as error:
        name = os.fsencode(error.filename or program[0])
        os.write(2, b"sandbox: " + name + b": " + os.fsencode(error.strerror or type(error).__name__) + b"\n")
        os._exit(NOT_STARTED)


if __name__ == "__main__":
    main(sys.argv[1:])
