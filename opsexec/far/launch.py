"""What to start: which program, which environment, where. Pure but for looking at the file system."""

from __future__ import annotations

import os

from opsexec.far.message import FarError, as_bytes, as_text, pack_message, unpack_message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MARKER = "OPSEXEC_RUN"
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
KEPT = ("HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "XDG_RUNTIME_DIR", MARKER)
"""What a program inherits of the session's environment; everything else is the step's own."""


class Launch:
    """What to start, as it crosses to the host."""

    __slots__ = (
        "admitted",
        "argv",
        "columns",
        "cwd",
        "env",
        "programs",
        "rows",
        "run",
        "stdin",
        "streams_stdin",
        "term",
    )

    def __init__(
        self,
        run: str,
        programs: Sequence[str],
        admitted: Sequence[str],
        argv: Sequence[str],
        env: Mapping[str, str],
        cwd: str = "",
        stdin: bytes = b"",
        streams_stdin: bool = False,
        term: str = "",
        columns: int = 0,
        rows: int = 0,
    ) -> None:
        self.run = run
        self.programs = programs
        self.admitted = admitted
        self.argv = argv
        self.env = env
        self.cwd = cwd
        self.stdin = stdin
        self.streams_stdin = streams_stdin
        self.term = term
        self.columns = columns
        self.rows = rows

    def pack(self) -> bytes:
        """Return the wire form."""
        return pack_message(
            [
                self.run.encode(),
                _pack(self.programs),
                _pack(self.admitted),
                _pack(self.argv),
                _pack([text for pair in self.env.items() for text in pair]),
                as_bytes(self.cwd),
                self.stdin,
                b"1" if self.streams_stdin else b"",
                self.term.encode(),
                b"%d" % self.columns,
                b"%d" % self.rows,
            ]
        )

    @classmethod
    def parse(cls, data: bytes) -> Launch:
        """Return the launch a wire form holds; raises ValueError for anything else."""
        run, programs, admitted, argv, env, cwd, stdin, streams, term, columns, rows = unpack_message(data)
        pairs = _unpack(env)
        return cls(
            run.decode(),
            _unpack(programs),
            _unpack(admitted),
            _unpack(argv),
            dict(zip(pairs[::2], pairs[1::2])),
            as_text(cwd),
            stdin,
            bool(streams),
            term.decode(),
            int(columns),
            int(rows),
        )

    def program(self) -> str:
        """Return the program to run: the first candidate that exists, if it is admitted. Raises FarError otherwise."""
        for path in self.programs:
            place = as_bytes(path)
            if os.access(place, os.X_OK) and not os.path.isdir(place):
                if path not in self.admitted:
                    raise FarError("denied", path + " is what " + self.argv[0] + " means here", path)
                return path
        for path in self.programs:
            if os.path.exists(as_bytes(path)):
                raise FarError("not_executable", path + " is not an executable file", path)
        raise FarError("not_found", "no such program: " + self.argv[0], *self.programs)

    def environment(self, kept: Mapping[str, str]) -> dict[str, str]:
        """Return the program's whole environment: the kept variables, a fixed PATH, the step's own, the marker."""
        env = dict(kept)
        env["PATH"] = SEARCH_PATH
        if self.term:
            env["TERM"] = self.term
        env.update(self.env)
        outer = env.get(MARKER)
        env[MARKER] = outer + "/" + self.run if outer else self.run
        return env

    def enter(self) -> None:
        """Go to the working directory; the home directory when none is named. Raises FarError."""
        try:
            os.chdir(as_bytes(self.cwd) or os.environb.get(b"HOME") or b"/")
        except OSError as error:
            if self.cwd:
                text = f"can't enter {self.cwd}: {os.strerror(error.errno or 0)}"
                raise FarError("no_cwd", text, self.cwd) from error
            os.chdir("/")


def kept_environment() -> dict[str, str]:
    """Return what programs inherit of this process's environment, with the marker of the run it is part of."""
    here = os.environ
    return {name: as_text(os.fsencode(here[name])) for name in KEPT if name in here}


def _pack(texts: Sequence[str]) -> bytes:
    return pack_message([as_bytes(text) for text in texts])


def _unpack(data: bytes) -> list[str]:
    return [as_text(item) for item in unpack_message(data)]
