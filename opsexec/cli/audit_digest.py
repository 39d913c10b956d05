"""`opsexec audit digest`: what the audit's digest of an output is, computed of a file that should be that output."""

from __future__ import annotations

import json
import re
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

from opsexec.cli.arguments import add_json
from opsexec.cli.command import Command
from opsexec.cli.ending import FAILED, OK, printable, tell
from opsexec.errors import OpsError, UsageError

if TYPE_CHECKING:
    import argparse

    from opsexec.cli.command import Parser

BLOCK = 1 << 20


def _arguments(parser: Parser) -> None:
    parser.add_argument("file", metavar="FILE|-", help="what should be a run's stdout; - is standard input")
    parser.add_argument("--is", metavar="DIGEST", dest="said", help="exit with 1 unless this is its digest")
    add_json(parser)


def _digest(args: argparse.Namespace) -> int:
    if args.said is not None and not re.fullmatch(r"(sha256|blake3):[0-9a-f]{64}", args.said):
        raise UsageError(
            f"{args.said[:80]!r} is not a digest", hint="sha256:HEX or blake3:HEX, as `opsexec audit show` prints it"
        )
    found, size = _digests(args.file)
    if args.json:
        print(json.dumps({"bytes": size, "digests": found}))
    elif args.said is None:
        for each in found:
            print(f"{each}  {printable(args.file)}")
    if args.said is None or args.said in found:
        return OK
    tell(f"{args.file} is not that output: its digests are {' and '.join(found)}")
    return FAILED


def _digests(file: str) -> tuple[list[str], int]:
    """Return the digests that an audit may have of it, and its length in bytes."""
    from opsexec.digest import StreamDigest

    usual, detached, size = StreamDigest(), StreamDigest(standard=True), 0
    try:
        with ExitStack() as stack:
            stream = sys.stdin.buffer if file == "-" else stack.enter_context(open(file, "rb"))
            while block := stream.read(BLOCK):
                usual.update(block)
                detached.update(block)
                size += len(block)
    except OSError as error:
        raise OpsError(f"{file} can't be read: {error.strerror}", hint="name a file that you may read") from error
    return list(dict.fromkeys((str(usual), str(detached)))), size


DIGEST = Command(
    name="digest",
    usage="FILE|- [OPTIONS]",
    summary="Print the digest that the audit has of an output, of a file.",
    description="""
    Print the digest that the audit has of a run whose stdout was what FILE holds: SHA-256 up to 64 KiB, as sha256sum
    prints it; BLAKE3 of what is longer, as b3sum does, and SHA-256 beside it, which a detached run has.""",
    arguments=_arguments,
    run=_digest,
    examples=("opsexec audit digest dump.sql", "opsexec audit digest dump.sql --is blake3:$SEEN"),
)
