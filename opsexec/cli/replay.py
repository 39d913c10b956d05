"""`opsexec replay`: a recorded terminal shown again, or held against what the host's audit knows of it."""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from opsexec.cli.arguments import add_inventory, add_json, add_ssh
from opsexec.cli.command import Command, seconds
from opsexec.cli.drive import drive
from opsexec.cli.ending import OK, tell
from opsexec.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opsexec.cli.command import Parser
    from opsexec.recording_chain import Anchor, Verified


class Source(NamedTuple):
    """A recording to be shown or checked. `links`: those that were noted elsewhere, None where nobody was asked."""

    path: Path
    name: str
    run: str | None
    links: list[Anchor] | None


def _arguments(parser: Parser) -> None:
    parser.add_argument("host", metavar="FILE|HOST", help="recording (asciicast v3), or the host whose agent keeps it")
    parser.add_argument("run_id", metavar="RUN", nargs="?", help="the terminal's run, with HOST")
    parser.add_argument("--from", metavar="S", type=moment, default=0.0, dest="begin", help="begin here: 90 or 1:30")
    parser.add_argument("--speed", metavar="N", type=seconds, default=1.0, help="so many times as fast")
    parser.add_argument(
        "--max-idle", "--idle", metavar="S", type=seconds, dest="idle", help="wait no longer than this many seconds"
    )
    parser.add_argument("--verify", action="store_true", help="don't show it: check it against the host's audit")
    parser.add_argument("--audit", metavar="LOG", help="audit log of the agent that recorded FILE, for --verify")
    parser.add_argument("--save", metavar="FILE", help="keep a host's recording in this new file")
    add_json(parser)
    add_inventory(parser)
    parser.add_argument("--cap", metavar="CAPABILITY", action="append", help="ask no more of the host than this")
    add_ssh(parser)


def moment(text: str) -> float:
    """Return a moment in a recording, in seconds: 90, 1:30 or 1:02:03. Raises ArgumentTypeError."""
    at = 0.0
    try:
        for part in text.split(":"):
            value = float(part)
            if not 0 <= value < 10**9:
                raise ValueError(part)
            at = at * 60 + value
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a moment, like 90 or 1:30") from error
    return at


def _replay(args: argparse.Namespace) -> int:
    if args.json and not args.verify:
        raise UsageError("--json goes with --verify", hint="a recording that is shown is no JSON; its file is")
    with _kept(args.save) as path:
        return drive(lambda: _work(args, path))


@contextmanager
def _kept(save: str | None) -> Iterator[Path]:
    """Give the place where a host's recording is put: the one to keep it at, else one that goes again."""
    if save is not None:
        yield Path(save)
        return
    import tempfile

    with tempfile.TemporaryDirectory(prefix="opsexec-replay-") as directory:
        yield Path(directory) / "recording.cast"


async def _work(args: argparse.Namespace, path: Path) -> int:
    source = await _fetched(args, path) if args.run_id is not None else _local(args)
    if args.verify:
        return _verify(source, args.json)
    return await _play(source.path, args.begin, args.speed, args.idle)


async def _fetched(args: argparse.Namespace, path: Path) -> Source:
    from opsexec.cli.targets import find_target, open_executor
    from opsexec.cli.watch import of_agent

    if args.audit is not None:
        raise UsageError("--audit goes with FILE", hint="the host is asked for what its own audit has")
    target = await find_target(args)
    async with open_executor(target, args) as executor:
        with _new(path) as file:
            links = await of_agent(executor).terminals.fetch(args.run_id, file)
    return Source(path, f"{target.name} {args.run_id}", args.run_id, links)


def _new(path: Path) -> BinaryIO:
    """Make a file that only this user can read; raises UsageError for one that is there."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise UsageError(f"{path} can't be made: {error.strerror}", hint="name a new file with --save") from error
    return os.fdopen(fd, "wb")


def _local(args: argparse.Namespace) -> Source:
    from opsexec.recording import read_recording

    path = Path(args.host)
    if args.save is not None:
        raise UsageError("--save goes with HOST and RUN")
    header, _ = read_recording(path)
    run = next((tag.removeprefix("run:") for tag in header.tags if tag.startswith("run:")), None)
    if not args.verify:
        return Source(path, str(path), run, None)
    if args.audit is None:
        raise UsageError("a file is verified against an audit log", hint="name it with --audit, or ask HOST RUN")
    return Source(path, str(path), run, _noted(args.audit, run))


def _noted(log: str, run: str | None) -> list[Anchor]:
    """Return a recording's links from a log whose own chain holds; raises RecordingForged for one that doesn't."""
    from opsexec.audit import verify
    from opsexec.recording_anchors import anchors_in
    from opsexec.recording_chain import RecordingForged

    report = verify(log)
    if report.problem is not None:
        raise RecordingForged(f"the audit log vouches for nothing: {report.problem}")
    return [] if run is None else anchors_in(log, run)


def _verify(source: Source, as_json: bool) -> int:
    from opsexec.recording_chain import RecordingForged, verify_recording

    if source.run is None:
        raise RecordingForged(f"{source.name} names no run: it was not recorded by an agent")
    verified = verify_recording(source.path, source.run, source.links or ())
    if as_json:
        import json

        import msgspec

        print(json.dumps({"run": source.run, **msgspec.structs.asdict(verified)}))
    else:
        print(f"{source.name}: {_sentence(verified)}")
    return OK


def _sentence(verified: Verified) -> str:
    if verified.complete:
        return f"whole and unchanged: {verified.size} bytes, {verified.links} links, as the audit has them"
    rest = verified.size - verified.anchored
    text = f"unchanged up to byte {verified.anchored} of {verified.size}; its end was not recorded"
    return text + (f", and nothing vouches for the last {rest} bytes" if rest else "")


async def _play(path: Path, begin_s: float, speed: float, idle_s: float | None) -> int:
    """Show a recording at its pace; what lies before `begin_s` all at once."""
    import asyncio

    from opsexec.cli.screen import Modes, size_of
    from opsexec.cli.streams import Output
    from opsexec.cli.watch import Drawn
    from opsexec.recording import read_recording

    header, events = read_recording(path)
    if sys.stdout.isatty():
        columns, rows = size_of(1)
        if columns < header.columns or rows < header.rows:
            tell(f"recorded on {header.columns}x{header.rows} characters, this terminal has {columns}x{rows}")
    output, modes = Output(), Modes()
    drawn, at = Drawn(output, modes), 0.0
    try:
        for event in events:
            wait_s = min(event.interval_s, max(0.0, at + event.interval_s - begin_s))
            at += event.interval_s
            if wait_s:
                await asyncio.sleep(wait_s / speed if idle_s is None else min(wait_s / speed, idle_s))
            if event.code == "o":
                await drawn.write("stdout", event.text.encode("utf-8", "replace"))
    finally:
        if sys.stdout.isatty():
            await output.write("stdout", modes.undo())
    if at < begin_s:
        tell(f"the recording is {at:.1f} s long")
    return OK


COMMANDS = (
    Command(
        name="replay",
        usage="FILE|HOST [RUN] [OPTIONS]",
        summary="Show a recorded terminal again, or verify that nobody changed it.",
        description="""
        Show a recorded terminal again: a file, or what a host's agent has recorded of a run (see `opsexec tty HOST
        --list`). What could steer the terminal it is shown on is left out: clipboard, title, reports, printing.

        --verify shows nothing. It checks every link of the recording's hash chain, and those that the host's agent has
        put in its audit: a byte that was changed, added, removed or cut off is found, and makes exit status 1.""",
        arguments=_arguments,
        run=_replay,
        examples=(
            "opsexec replay session.cast --speed 4 --max-idle 1",
            "opsexec replay agent+ssh://web1 6f1e0c2a9b7d4e53 --from 1:30",
            "opsexec replay agent+ssh://web1 6f1e0c2a9b7d4e53 --verify",
            "opsexec replay session.cast --verify --audit /var/lib/ops-agent/audit.jsonl",
        ),
    ),
)
