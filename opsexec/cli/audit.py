"""`opsexec audit`: check the chain, read its last lines, show one run."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opsexec.cli.arguments import add_json
from opsexec.cli.command import Command, count
from opsexec.cli.ending import FAILED, OK, printable, tell
from opsexec.cli.json_text import json_text
from opsexec.errors import HostUnsuitable, OpsError, UsageError

if TYPE_CHECKING:
    import argparse

    from opsexec.audit import AuditEntry, VerifyReport
    from opsexec.cli.command import Parser

SHOWN_LINE = 2000
"""How many characters of a bad line are shown."""


def _add_log(parser: Parser) -> None:
    parser.add_argument(
        "log",
        metavar="LOG",
        nargs="?",
        help="audit log (default: $OPSEXEC_AUDIT, ~/.local/state/opsexec/audit.jsonl)",
    )


def _log(args: argparse.Namespace) -> Path:
    """Return the log that is meant; a host's own log can't be read yet."""
    from opsexec.audit import default_path

    if args.log is None:
        return default_path()
    path = Path(args.log)
    if not path.exists() and os.sep not in args.log and not args.log.endswith(".jsonl"):
        raise HostUnsuitable(
            f"{args.log!r} is no file, and the audit that ops-agent keeps on a host can't be read from here yet",
            hint="name a log's file",
        )
    return path


def _verify_arguments(parser: Parser) -> None:
    _add_log(parser)
    parser.add_argument("--head", metavar="SEQ:HASH", help="a head noted down earlier: the chain must still hold it")
    add_json(parser)


def _verify(args: argparse.Namespace) -> int:
    from opsexec.audit import verify

    report = verify(_log(args), head=_head(args.head))
    if args.json:
        print(json.dumps(_as_json(report)))
    elif report.problem is None:
        print(report)
    else:
        print(report.problem)
        print(printable(_line(report.problem.file, report.problem.line)))
    if report.problem is None:
        return OK
    tell(
        f"the audit log {report.path} is not whole: {report.problem.why} at line {report.problem.line}",
        hint="keep the file as it is and find out who changed it",
    )
    return FAILED


def _head(text: str | None) -> AuditEntry | None:
    from opsexec.audit import AuditEntry

    if text is None:
        return None
    seq, colon, digest = text.partition(":")
    if not (colon and seq.isascii() and seq.isdigit() and len(digest) == 64):
        raise UsageError(
            f"{text[:80]!r} is not a head", hint="SEQ:HASH, the number and the 64 hex digits verify printed"
        )
    return AuditEntry(int(seq), digest.lower())


def _line(file: Path, number: int) -> str:
    """Return a line of a log as text, cut to what a person looks at."""
    with file.open("rb") as stream:
        for at, raw in enumerate(stream, 1):
            if at == number:
                return raw[:SHOWN_LINE].decode("utf-8", "backslashreplace")
    return ""


def _as_json(report: VerifyReport) -> dict[str, Any]:
    problem = report.problem
    return {
        "ok": report.ok,
        "log": str(report.path),
        "lines": report.lines,
        "files": [str(segment.file) for segment in report.segments],
        "first_seq": report.first_seq,
        "head": None if report.head is None else {"seq": report.head.seq, "hash": report.head.hash},
        "rotations": report.rotations,
        "repairs": report.repairs,
        "problem": None
        if problem is None
        else {"file": str(problem.file), "line": problem.line, "why": problem.why, "detail": problem.detail},
    }


def _tail_arguments(parser: Parser) -> None:
    _add_log(parser)
    parser.add_argument("-n", "--lines", metavar="N", type=count, default=10, help="how many (default 10)")
    parser.add_argument("-f", "--follow", action="store_true", help="go on with each new line, until Ctrl-C")
    parser.add_argument("--json", action="store_true", help="print the records as they are, one a line")


def _tail(args: argparse.Namespace) -> int:
    from opsexec.audit import tail

    for record in tail(_log(args), args.lines, follow=args.follow):
        print(json_text(record) if args.json else in_words(record), flush=True)
    return OK


def _show_arguments(parser: Parser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run's id, or its first digits")
    _add_log(parser)
    add_json(parser)


def _show(args: argparse.Namespace) -> int:
    log = _log(args)
    try:
        records = list(_of_run(log, args.run))
    except OSError as error:
        raise OpsError(f"the audit log {log} can't be read: {error.strerror}", hint="name another") from error
    if not records:
        raise OpsError(f"no line of {log} is about run {args.run!r}", hint="`opsexec audit tail` shows the last runs")
    if args.json:
        print(json_text({"records": records}))
        return OK
    from opsexec.cli.table import flat

    for at, record in enumerate(records):
        print("" if at == 0 else "\n", end="")
        for name, text in flat({name: value for name, value in record.items() if value is not None}):
            print(f"{name:<22}  {text}")
    return OK


def _of_run(log: Path, run: str) -> Iterator[dict[str, Any]]:
    """Yield the records of runs whose id begins so, from every segment of the log, oldest first."""
    from opsexec.audit.segment import closed_segments

    needle = b'"run":"' + run.encode("utf-8", "replace")
    for file in [*(path for _, path in closed_segments(log)), log]:
        with file.open("rb") as stream:
            for raw in stream:
                if needle in raw:
                    record = json.loads(raw)
                    if str(record.get("run", "")).startswith(run):
                        yield record


def in_words(record: dict[str, Any]) -> str:
    """Return one record on one line: when, what was decided or how it ended, where, who, what."""
    when, host, run = str(record.get("ts"))[:19].replace("T", " "), record.get("host") or "-", record.get("run")
    step, outcome = record.get("step"), record.get("outcome")
    parts = [when, record.get("decision") or ("done" if outcome is not None else "note"), host]
    if isinstance(step, dict):
        parts += [record.get("principal") or "", str(step.get("type")), _about(step, record)]
    if record.get("decision") == "deny":
        parts.append(str(record.get("reason") or ""))
    if isinstance(outcome, dict):
        parts.append(_ended(outcome))
    if run:
        parts.append(f"run {run}")
    return "  ".join(printable(part) for part in parts if part)


def _about(step: dict[str, Any], record: dict[str, Any]) -> str:
    if isinstance(step.get("argv"), list):
        import shlex

        return shlex.join(map(str, step["argv"]))
    for name in ("action", "path", "dest", "name"):
        if step.get(name):
            return str(step[name])
    return " ".join(map(str, record.get("requires") or ()))


def _ended(outcome: dict[str, Any]) -> str:
    how = outcome.get("error") or outcome.get("signal") or f"exit {outcome.get('exit_code')}"
    sizes = (outcome.get("stdout_bytes") or 0) + (outcome.get("stderr_bytes") or 0)
    return f"{how}, {outcome.get('duration_s') or 0:.3f} s, {sizes} B"


COMMANDS = (
    Command(
        name="audit",
        usage="verify|tail|show [OPTIONS]",
        summary="Check and read the audit log: every decision, and how it ended.",
        description="""
        Check and read the audit log. Each line holds the hash of the one before, so that nothing can be changed or
        taken out of it unnoticed. It is the log of what this user asked of hosts, not of what hosts did.""",
        arguments=lambda parser: None,
        examples=("opsexec audit verify", "opsexec audit tail -f", "opsexec audit show 80f2ad2afc5043ea"),
        subcommands=(
            Command(
                name="verify",
                usage="[LOG] [OPTIONS]",
                summary="Check the whole chain; print the first bad line.",
                description="""
                Check the whole chain, rotated segments first. Exit code 1 and the first bad line where it is not
                whole. A chain can't prove its own end: --head, noted down from an earlier check, does.""",
                arguments=_verify_arguments,
                run=_verify,
                examples=(
                    "opsexec audit verify",
                    "opsexec audit verify /var/log/opsexec/audit.jsonl --json | jq .head",
                ),
            ),
            Command(
                name="tail",
                usage="[LOG] [OPTIONS]",
                summary="Print the last lines, and with -f those still to come.",
                arguments=_tail_arguments,
                run=_tail,
                examples=("opsexec audit tail -n 50", "opsexec audit tail -f --json | jq .step"),
            ),
            Command(
                name="show",
                usage="RUN [LOG] [OPTIONS]",
                summary="Show all that is recorded about one run.",
                arguments=_show_arguments,
                run=_show,
                examples=("opsexec audit show 80f2ad2afc5043ea", "opsexec audit show 80f2 --json"),
            ),
        ),
    ),
)
