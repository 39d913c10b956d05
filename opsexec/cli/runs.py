"""`opsexec runs`: the runbook runs of this user, from their journals, or what an ops-agent runs on its host."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from opsexec.cli.arguments import add_host, add_json, add_reach
from opsexec.cli.command import Command, whole
from opsexec.cli.ending import OK, printable, tell
from opsexec.cli.json_text import json_text
from opsexec.errors import OpsError, UsageError

if TYPE_CHECKING:
    import argparse

    from opsexec.cli.command import Parser
    from opsexec.runbook.resume import JournalState


class Journaled(NamedTuple):
    """One run's journal. `state`: going on, finished, stopped, interrupted, or broken off (its process died).

    `stopped`: why hosts were held back, at a gate or for others' failures.
    """

    run: str
    state: str
    stopped: str | None
    journal: JournalState
    records: list[dict[str, Any]]


def read_run(file: Path) -> Journaled:
    """Read a journal; raises BadJournal, or UsageError when there is none."""
    from opsexec.runbook.resume import read_journal

    try:
        data = file.read_bytes()
    except OSError as error:
        raise UsageError(
            f"there is no run {file.stem}", hint=f"see `opsexec runs list`; runs are kept in {file.parent}"
        ) from error
    journal = read_journal(data, str(file))
    records = [json.loads(line) for line in data[: journal.good_bytes].splitlines()]
    last = records[-1]
    stopped = last.get("stopped") if last["kind"] == "end" else None
    return Journaled(file.stem, _state(file, "stopped" if stopped else last["kind"]), stopped, journal, records)


def _state(file: Path, last: str) -> str:
    import fcntl

    with file.open("rb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return "going on"
    return {"end": "finished", "stopped": "stopped", "interrupted": "interrupted"}.get(last, "broken off")


def _list_arguments(parser: Parser) -> None:
    parser.add_argument("host", metavar="HOST", nargs="?", help="a host with ops-agent (default: your own runs)")
    add_reach(parser)
    add_json(parser)


def _list(args: argparse.Namespace) -> int:
    if args.host is not None:
        from opsexec.cli.host_runs import list_runs

        return list_runs(args)
    from opsexec.cli.table import print_table
    from opsexec.runbook.journal import journal_dir

    rows: list[dict[str, Any]] = []
    for file in sorted(journal_dir().glob("*.jsonl")):
        try:
            rows.append(_summary(read_run(file)))
        except OpsError as error:
            tell(str(error))
    if args.json:
        print(json_text({"runs": rows}))
    elif rows:
        table = [[row["run"], row["state"], str(len(row["hosts"])), _counted(row), row["name"]] for row in rows]
        print_table(["RUN", "STATE", "HOSTS", "RESULT", "RUNBOOK"], table)
    else:
        tell(f"there are no runs in {journal_dir()}", hint="`opsexec run RUNBOOK` makes one")
    return OK


def _summary(run: Journaled) -> dict[str, Any]:
    header = run.journal.header
    hosts = {name: _status(run.journal, name) for name in header.get("hosts", {})}
    return {
        "run": run.run,
        "state": run.state,
        "stopped": run.stopped,
        "name": header.get("name"),
        "file": header.get("file"),
        "check": header.get("check", False),
        "hosts": hosts,
    }


def _status(journal: JournalState, host: str) -> str:
    state = journal.hosts.get(host)
    if state is None:
        return "not begun"
    return state.status or "under way"


def _counted(row: dict[str, Any]) -> str:
    statuses = list(row["hosts"].values())
    return ", ".join(f"{statuses.count(each)} {each}" for each in dict.fromkeys(statuses)) or "-"


def _show_arguments(parser: Parser) -> None:
    parser.add_argument("words", metavar="[HOST] RUN", nargs="+", help="a run's id; before it a host with ops-agent")
    add_reach(parser)
    add_json(parser)


def _show(args: argparse.Namespace) -> int:
    if len(args.words) > 2:
        raise UsageError("runs show takes a run, and before it a host", hint="see `opsexec runs show --help`")
    if len(args.words) == 2:
        from opsexec.cli.host_runs import show_run

        return show_run(args, *args.words)
    from opsexec.cli.table import print_table
    from opsexec.runbook.journal import Journal

    run = read_run(Journal().path(args.words[0]))
    summary = _summary(run)
    steps = {
        name: [step.report.as_json() for step in state.finished.values()] for name, state in run.journal.hosts.items()
    }
    if args.json:
        hosts = {n: {"status": s, "steps": steps.get(n, [])} for n, s in summary["hosts"].items()}
        print(json_text({**summary, "hosts": hosts}))
        return OK
    print(f"run {run.run}: {summary['name']}, {run.state}{' (a check)' if summary['check'] else ''}")
    rows = [
        [name, step["name"], step["status"], f"{step['duration_s']:.2f} s", step["error"] or ""]
        for name in summary["hosts"]
        for step in steps.get(name, [])
    ]
    rows += [[name, "-", status, "", ""] for name, status in summary["hosts"].items() if name not in steps]
    print_table(["HOST", "STEP", "STATUS", "TOOK", "ERROR"], rows)
    if run.stopped is not None:
        print(f"stopped: {printable(run.stopped)}")
    if run.state in ("stopped", "interrupted", "broken off") and not summary["check"]:
        print(f"go on with: opsexec run {summary['file'] or 'RUNBOOK'} --resume {run.run}")
    return OK


def _attach_arguments(parser: Parser) -> None:
    add_host(parser, many=False)
    parser.add_argument("run", metavar="RUN", help="a run's id")
    parser.add_argument("--offset", metavar="N", type=whole, default=0, help="go on from this byte of its log")
    add_json(parser)


def _attach(args: argparse.Namespace) -> int:
    from opsexec.cli.host_runs import attach_run

    return attach_run(args)


def _kill_arguments(parser: Parser) -> None:
    add_host(parser, many=False)
    parser.add_argument("run", metavar="RUN", help="a run's id")
    parser.add_argument("--signal", metavar="NAME", default="end", help="send this, like SIGHUP, instead of ending it")


def _kill(args: argparse.Namespace) -> int:
    from opsexec.cli.host_runs import kill_run

    return kill_run(args)


COMMANDS = (
    Command(
        name="runs",
        usage="list|show|attach|kill [HOST] [RUN] [OPTIONS]",
        summary="List and show runs: your own runbook runs, or those that ops-agent keeps on a host.",
        arguments=lambda parser: None,
        examples=("opsexec runs list", "opsexec runs show 20250131-235959-0a1b2c"),
        subcommands=(
            Command(
                name="list",
                usage="[HOST] [OPTIONS]",
                summary="List runs, the oldest first.",
                arguments=_list_arguments,
                run=_list,
                examples=(
                    "opsexec runs list",
                    "opsexec runs list web1",
                    "opsexec runs list --json | jq -r '.runs[-1].run'",
                ),
            ),
            Command(
                name="show",
                usage="[HOST] RUN [OPTIONS]",
                summary="Show each step of a run on each host; or a run on one host, which its ops-agent keeps.",
                arguments=_show_arguments,
                run=_show,
                examples=("opsexec runs show 20250131-235959-0a1b2c",),
            ),
            Command(
                name="attach",
                usage="HOST RUN [OPTIONS]",
                summary="Follow the output of a run that goes on on a host (needs ops-agent there).",
                description="""
                Follow the output of a run that was started to live on, from its beginning or --offset, to its end; then
                exit as it did. Ctrl-C leaves it running.""",
                arguments=_attach_arguments,
                run=_attach,
                examples=("opsexec runs attach web1 80f2ad2afc5043ea",),
            ),
            Command(
                name="kill",
                usage="HOST RUN [OPTIONS]",
                summary="End a run and all it started on a host (needs ops-agent there).",
                arguments=_kill_arguments,
                run=_kill,
                examples=("opsexec runs kill web1 80f2ad2afc5043ea",),
            ),
        ),
    ),
)
