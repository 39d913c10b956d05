"""How a command ends: its exit code, and for what went wrong one sentence and a hint, never a traceback."""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from opsexec.closed_streams import stand_in
from opsexec.early_interrupt import told
from opsexec.errors import BadRunbook, OpsError, UsageError

if TYPE_CHECKING:
    from typing import TextIO

OK, FAILED, USAGE, COULD_NOT_RUN = 0, 1, 2, 3
INTERRUPTED = 130
READER_GONE = 141
"""What a shell shows for a program that SIGPIPE ended: here, the reader of stdout went away."""

_FLAGS = (
    (re.compile(r"\btimeout_s\b"), "--timeout"),
    (re.compile(r"(?<!grant's )\brun_as\b(?!:)"), "--as"),
    (re.compile(r"\bcwd\b"), "--cwd"),
    (re.compile(r"(?<=by )known_hosts\b"), "--known-hosts"),
    (re.compile(r"\bhost keys accept-new\b"), "--accept-new"),
)
"""Arguments of the library that its hints name, and the flags of the command line that stand for them."""

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)


class OutputFailed(OpsError):
    """The command's own stdout or stderr can't be written (a full disk, a terminal that is gone)."""

    code = "output"
    exit_code = COULD_NOT_RUN

    def __init__(self, error: OSError) -> None:
        super().__init__(f"the output can't be written: {error.strerror}", hint="make room, or write it elsewhere")


def guarded(argv: Sequence[str] | None) -> int:
    """Parse, run, and turn every way a command can end into an exit code."""
    stand_in()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    await_children()
    try:
        code = _run(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
    except BrokenPipeError:
        forget(sys.stdout)
        return READER_GONE
    except OSError as error:
        forget(sys.stdout)
        say(OutputFailed(error))
        return COULD_NOT_RUN
    return code


def await_children() -> None:
    """Have the kernel keep what a child's end says, also where who started this program had it thrown away."""
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def _run(argv: Sequence[str]) -> int:
    try:
        told()
        from opsexec.cli.parser import parse

        args = parse(argv)
        return int(args.handler(args))
    except OpsError as error:
        say(error)
        return error.exit_code
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # the next one ends it, also while nobody reads this
        tell("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        raise
    except SystemExit as left:  # how argparse ends after --help
        return int(left.code or 0)
    except Exception as error:  # the last resort: the traceback goes to a file, the sentence to the person
        if isinstance(error, OSError) and error.errno in NO_ROOM and not error.filename:
            raise  # a write, to no file that has a name: the output
        return _crashed(error)


@contextmanager
def all_written() -> Iterator[None]:
    """Have all that another program of this project prints written before it ends well; raises what `ended` tells."""
    try:
        yield
    except SystemExit:  # how argparse ends after --help
        _write_out()
        raise
    _write_out()


def _write_out() -> None:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputFailed(error) from error


def ended(error: Exception, program: str) -> int:
    """Say in a sentence and a hint what ended another program of this project's; returns its exit code.

    Of a group of errors the first is told. What nobody foresaw leaves its traceback in a file.
    """
    code = _told(error, program)
    try:
        sys.stdout.flush()
    except OSError:
        forget(sys.stdout)  # it has failed as it is: the interpreter's last flush would end it in another way
    return code


def _told(error: Exception, program: str) -> int:
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, OpsError):
        say(error, program)
        return error.exit_code
    if isinstance(error, BrokenPipeError):
        forget(sys.stdout)
        return READER_GONE
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        where = f" to {error.filename}" if error.filename else ""
        tell(f"nothing more can be written{where}: {error.strerror}", hint="make room there", program=program)
        return COULD_NOT_RUN
    return _crashed(error, program)


def say(error: OpsError, program: str = "opsexec") -> None:
    """Print an error's sentence and its hint on stderr."""
    tell(str(error), hint=hint_of(error) if program == "opsexec" else error.hint, program=program)


def hint_of(error: OpsError) -> str | None:
    """Return an error's hint with flags where the library's names an argument; a runbook's keys stay what they are."""
    hint = error.hint
    if hint and not isinstance(error, BadRunbook):
        for name, flag in _FLAGS:
            hint = name.sub(flag, hint)
    return hint


def tell(sentence: str, *, hint: str | None = None, program: str = "opsexec") -> None:
    """Print a sentence about what happened on stderr, and what to do about it below."""
    text = f"{program}: {printable(sentence)}\n"
    if hint:
        text += f"  hint: {printable(hint)}\n"
    with suppress(OSError):  # what is left unwritten is told as the command ends
        sys.stdout.flush()
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except OSError:
        forget(sys.stderr)  # nobody can be told (the terminal is gone, its disk full): the exit code says it


def printable(text: str) -> str:
    """Return text on one line without control characters: a host's own words must not drive the terminal."""
    text = " ".join(text.split())
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def worst(codes: Sequence[int]) -> int:
    """Return one exit code for many hosts: 1 when the work failed on any, else the gravest reason."""
    return FAILED if FAILED in codes else max(codes, default=OK)


def _crashed(error: Exception, program: str = "opsexec") -> int:
    """Keep the traceback of a defect in a file of the user's own and say where."""
    if _wants_a_thread(error):
        tell("no thread can be started: the limit of processes is reached", hint="see `ulimit -u`", program=program)
        return COULD_NOT_RUN
    if isinstance(error, (ModuleNotFoundError, ExceptionGroup)):
        from opsexec.cli.extras import missing_extra

        missing = missing_extra(error, program)
        if missing is not None:
            sentence = f"the package {missing[0]} is not installed, which this needs"
            tell(sentence, hint=f'install "opsexec[{missing[1]}]"', program=program)
            return COULD_NOT_RUN
    import traceback

    text = "".join(traceback.format_exception(error))
    try:
        file = _keep(text)
    except OSError as unwritten:
        tell(f"internal error: {_kind(error)}; its traceback could not be kept: {unwritten}", program=program)
        return COULD_NOT_RUN
    tell(
        f"internal error: {_kind(error)}; the traceback is in {file}", hint="report it, with that file", program=program
    )
    return COULD_NOT_RUN


def _wants_a_thread(error: Exception) -> bool:
    """True for what Python raises where the kernel gives no thread (pthread_create(3), EAGAIN): no class of its own."""
    if isinstance(error, ExceptionGroup):
        return any(map(_wants_a_thread, error.exceptions))
    return isinstance(error, RuntimeError) and str(error) == "can't start new thread"


def _kind(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:200]


def _keep(text: str) -> str:
    import tempfile

    from opsexec.state_home import state_home

    try:
        folder = os.path.join(state_home(), "opsexec")
        os.makedirs(folder, mode=0o700, exist_ok=True)
        fd, name = tempfile.mkstemp(prefix="crash-", suffix=".txt", dir=folder)
    except (OSError, UsageError):
        fd, name = tempfile.mkstemp(prefix="opsexec-crash-", suffix=".txt")
    with open(fd, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)
    return name


def forget(stream: TextIO) -> None:
    """Point a stream at nothing: the interpreter's last flush would complain about a reader that went."""
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, stream.fileno())
    except (OSError, ValueError):  # it is no file at all (a test's buffer): nothing will be flushed into a pipe
        return
    finally:
        os.close(null)


__all__ = [
    "COULD_NOT_RUN",
    "FAILED",
    "OK",
    "USAGE",
    "OpsError",
    "UsageError",
    "all_written",
    "await_children",
    "ended",
    "forget",
    "guarded",
    "say",
    "tell",
    "worst",
]
