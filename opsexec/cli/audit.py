"""`opsexec audit`: check the chain, read its last lines, show one run; of your own log, or of a host's."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opsexec.cli.arguments import add_json, add_reach
from opsexec.cli.audit_digest import DIGEST
from opsexec.cli.command import Command, count
from opsexec.cli.ending import FAILED, OK, printable, tell
from opsexec.cli.json_text import json_text
from opsexec.cli.records import in_words, print_details
from opsexec.errors import OpsError, ProtocolError, UsageError

if TYPE_CHECKING:
    import argparse

    from opsexec.audit import AuditEntry, VerifyReport
    from opsexec.audit_heads import HeadsReport
    from opsexec.audit_heads.keys import HostKeys
    from opsexec.cli.command import Parser

SHOWN_LINE = 2000
"""How many characters of a bad line are shown."""


def _add_log(parser: Parser) -> None:
    parser.add_argument(
        "log",
        metavar="LOG|HOST",
        nargs="?",
        help="a log's file, or a host with ops-agent, whose log it is "
        "(default: $OPSEXEC_AUDIT, ~/.local/state/opsexec/audit.jsonl)",
    )
    add_reach(parser)


def _is_host(args: argparse.Namespace) -> bool:
    """True when a host's own log is meant: a URL, or a name that is no file's."""
    from opsexec.inventory import is_url

    log: str | None = args.log
    if log is None or Path(log).exists():
        return False
    return is_url(log) or (os.sep not in log and not log.endswith(".jsonl"))


def _log(args: argparse.Namespace) -> Path:
    from opsexec.audit import default_path

    return default_path() if args.log is None else Path(args.log)


def _verify_arguments(parser: Parser) -> None:
    _add_log(parser)
    parser.add_argument("--head", metavar="SEQ:HASH", help="a head noted down earlier: the chain must still hold it")
    parser.add_argument(
        "--key",
        metavar="FILE|NAME",
        help="check the heads that the log's host has signed: with a file of known hosts or of public keys, "
        "or the keys that your known hosts have of this host",
    )
    parser.add_argument("--host", metavar="NAME", dest="signer", help="what known hosts call the log's host")
    add_json(parser)


def _verify(args: argparse.Namespace) -> int:
    if _is_host(args):
        return _verify_host(args)
    from opsexec.audit import verify
    from opsexec.audit_heads import heads_path
    from opsexec.audit_heads.report import as_json, heads_json

    log = _log(args)
    report = verify(log, head=_head(args.head))
    heads = None
    if report.problem is None and (args.key is not None or heads_path(log.absolute()).exists()):
        heads = _check_heads(args, log.absolute())
        report = heads.chain
    if args.json:
        print(json.dumps(as_json(report) if heads is None else heads_json(heads)))
    return _conclude(report, heads, silent=args.json)


def _check_heads(args: argparse.Namespace, log: Path) -> HeadsReport:
    from opsexec.audit_heads import check_heads

    return check_heads(log, None if args.key is None else _keys_for(args))


def _keys_for(args: argparse.Namespace) -> Callable[[str], HostKeys]:
    from opsexec.audit_heads.keys import find_keys

    return lambda host: find_keys(args.key, args.signer or host)


def _conclude(report: VerifyReport, heads: HeadsReport | None, *, silent: bool) -> int:
    """Say what was found of a log's file, and return the exit code."""
    if report.problem is not None:
        if not silent:
            print(report.problem)
            print(printable(_line(report.problem.file, report.problem.line)))
        tell(
            f"the audit log {report.path} is not whole: {report.problem.why} at line {report.problem.line}",
            hint="keep the file as it is and find out who changed it",
        )
        return FAILED
    if not silent:
        print(report)
    if heads is None:
        return OK
    if heads.problem is not None:
        tell(f"the audit log {report.path} is not vouched for: {heads.problem}", hint="find out who changed it, or why")
        return FAILED
    if heads.signed is not None and not silent:
        print(_signed_in_words(heads.signed.said.host, heads.signed.said.seq, heads.signed.said.ts, heads.unsigned))
    return OK


def _signed_in_words(host: object, seq: object, ts: object, unsigned: object) -> str:
    return printable(f"signed by {host} up to line {seq}, at {ts}; {unsigned} lines since")


def _verify_host(args: argparse.Namespace) -> int:
    from opsexec.steps import AuditRead

    if args.head is not None:
        raise UsageError("--head is for a log's file", hint="with a host use --key")
    found: Any = _read(args, AuditRead("verify"), None)
    if not isinstance(found, dict):
        raise ProtocolError("the agent's answer is not a report")
    problem = found.get("problem")
    signed = found.get("signed")
    why = None
    if isinstance(problem, dict):
        why = f"{problem.get('why')} at line {problem.get('line')} of {problem.get('file')}: {problem.get('detail')}"
    elif args.key is not None:
        why = _distrusted(args, signed)
    if args.json:
        print(json_text({**found, "ok": bool(found.get("ok")) and why is None}))
    elif why is None:
        head = found["head"] if isinstance(found.get("head"), dict) else {}
        files = len(found["files"]) if isinstance(found.get("files"), list) else 0
        print(
            printable(
                f"{args.log}: {found.get('lines')} lines in {files} files, head {head.get('seq')} {head.get('hash')}"
            )
        )
        if isinstance(signed, dict):
            said = [signed.get(name) for name in ("host", "seq", "ts", "unsigned_lines")]
            print(_signed_in_words(*said))
    if why is None:
        return OK
    tell(
        f"the audit of {args.log} is not in order: {why}", hint="keep its files as they are; find out who changed them"
    )
    return FAILED


def _distrusted(args: argparse.Namespace, signed: Any) -> str | None:
    """Return why the head that an agent shows is not its host's word; None when it is."""
    from opsexec.audit_heads.head import as_line, parse_line

    if not isinstance(signed, dict):
        return "there are no signed heads: nothing vouches for this chain"
    line = as_line(str(signed.get("statement")), str(signed.get("signature")))
    head = parse_line(line[:-1])
    if head is None or head.said.seq != signed.get("seq"):
        return "its newest signed head is none"
    if not _keys_for(args)(head.said.host).vouch(head.statement, head.signature):
        return f"the newest head is not signed by a key of {args.signer or head.said.host}"
    return None


def _read(args: argparse.Namespace, step: Any, each: Callable[[dict[str, Any]], None] | None) -> Any:
    """Have an agent read its audit; returns the step's answer. `each` is given every record.

    Raises SystemExit where a signal ended it: that says nothing about the audit.
    """
    from opsexec.cli.agents import open_agent
    from opsexec.cli.drive import drive
    from opsexec.sinks import LineSink

    answer: list[Any] = []

    async def take(stream: str, line: bytes) -> None:
        if each is None or stream != "stdout":
            return
        each(_record(line))

    async def work() -> int:
        async with await open_agent(args, args.log) as agent:
            answer.append((await agent.run(step, LineSink(take))).value)
        return OK

    code = drive(work, when_left="the audit was not read to its end")
    if code != OK:
        raise SystemExit(code)
    return answer[0]


def _record(line: bytes) -> dict[str, Any]:
    from opsexec.audit.record import MAX_DEPTH, is_plain

    try:
        record = json.loads(line)
    except ValueError as error:
        raise ProtocolError("the agent's answer holds a line that is not JSON") from error
    except RecursionError as error:
        raise ProtocolError("the agent's answer holds a line that is nested too deep") from error
    if not isinstance(record, dict):
        raise ProtocolError("the agent's answer holds a line that is no record")
    if not is_plain((record,), MAX_DEPTH + 1):
        text = f"the agent's answer holds a line that no log has: nested over {MAX_DEPTH} deep, or with odd numbers"
        raise ProtocolError(text)
    return record


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


def _tail_arguments(parser: Parser) -> None:
    _add_log(parser)
    parser.add_argument("-n", "--lines", metavar="N", type=count, default=10, help="how many (default 10)")
    parser.add_argument(
        "-f", "--follow", action="store_true", help="go on with each new line, until Ctrl-C (of a file)"
    )
    parser.add_argument("--json", action="store_true", help="print the records as they are, one a line")


def _tail(args: argparse.Namespace) -> int:
    def show(record: dict[str, Any]) -> None:
        print(json_text(record) if args.json else in_words(record), flush=True)

    if _is_host(args):
        from opsexec.steps import AuditRead

        if args.follow:
            raise UsageError("a host's audit can't be followed", hint="ask again, or follow the file on the host")
        _read(args, AuditRead("tail", lines=args.lines), show)
        return OK
    from opsexec.audit import tail

    for record in tail(_log(args), args.lines, follow=args.follow):
        show(record)
    return OK


def _show_arguments(parser: Parser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run's id, or its first digits")
    _add_log(parser)
    add_json(parser)


def _show(args: argparse.Namespace) -> int:
    if not args.run:
        raise UsageError("RUN is empty", hint="name a run's id; `opsexec audit tail` shows the last ones")
    records = list(_records_of(args))
    if not records:
        where = args.log or _log(args)
        raise OpsError(f"no line of {where} is about run {args.run!r}", hint="`opsexec audit tail` shows the last runs")
    if args.json:
        print(json_text({"records": records}))
    else:
        print_details(records)
    return OK


def _records_of(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    from opsexec.audit_heads.lines import of_run

    if _is_host(args):
        from opsexec.steps import AuditRead
        from opsexec.steps.audit import MAX_LINES

        found: list[dict[str, Any]] = []
        _read(args, AuditRead("show", lines=MAX_LINES, run=args.run), found.append)
        yield from found
        return
    log = _log(args)
    try:
        yield from of_run(log, args.run)
    except OSError as error:
        raise OpsError(f"the audit log {log} can't be read: {error.strerror}", hint="name another") from error


COMMANDS = (
    Command(
        name="audit",
        usage="verify|tail|show|digest [OPTIONS]",
        summary="Check and read the audit log: every decision, and how it ended.",
        description="""
        Check and read the audit log. Each line holds the hash of the one before, so that nothing can be changed or
        taken out of it unnoticed. Your own log says what you asked of hosts; a host's, which its ops-agent keeps,
        what anybody asked of it (needs audit.read there).""",
        arguments=lambda parser: None,
        examples=("opsexec audit verify", "opsexec audit tail -f", "opsexec audit show 80f2ad2afc5043ea"),
        subcommands=(
            Command(
                name="verify",
                usage="[LOG|HOST] [OPTIONS]",
                summary="Check the whole chain; print the first bad line.",
                description="""
                Check the whole chain, rotated segments first. Exit code 1 and the first bad line where it is not
                whole. A chain can't prove its own end: --head, noted down from an earlier check, does, and so
                does what the log's host has signed (LOG.heads): --key checks by which key.""",
                arguments=_verify_arguments,
                run=_verify,
                examples=(
                    "opsexec audit verify",
                    "opsexec audit verify /var/log/opsexec/audit.jsonl --json | jq .head",
                    "opsexec audit verify /var/lib/ops-agent/audit.jsonl --key ~/.ssh/known_hosts --host web1",
                    "opsexec audit verify agent+ssh://deploy@web1 --key web1",
                ),
            ),
            Command(
                name="tail",
                usage="[LOG|HOST] [OPTIONS]",
                summary="Print the last lines, and with -f those still to come.",
                arguments=_tail_arguments,
                run=_tail,
                examples=(
                    "opsexec audit tail -n 50",
                    "opsexec audit tail web1",
                    "opsexec audit tail -f --json | jq .step",
                ),
            ),
            Command(
                name="show",
                usage="RUN [LOG|HOST] [OPTIONS]",
                summary="Show all that is recorded about one run.",
                arguments=_show_arguments,
                run=_show,
                examples=("opsexec audit show 80f2ad2afc5043ea", "opsexec audit show 80f2 --json"),
            ),
            DIGEST,
        ),
    ),
)
