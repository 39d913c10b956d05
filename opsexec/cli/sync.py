"""`opsexec push` and `opsexec pull`: trees between here and one host or many."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from opsexec.cli.arguments import add_host, add_json, add_timeout, add_user
from opsexec.cli.command import Command, count
from opsexec.cli.drive import drive
from opsexec.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from opsexec.cli.command import Parser
    from opsexec.cli.results import Result
    from opsexec.cli.targets import Target
    from opsexec.steps import Step


def _push_arguments(parser: Parser) -> None:
    add_host(parser)
    parser.add_argument("src", metavar="SRC", help="local file or tree; with / at its end: what is in it")
    parser.add_argument("dst", metavar="DST", help="absolute path on the host")
    _add_options(parser)


def _pull_arguments(parser: Parser) -> None:
    add_host(parser)
    parser.add_argument("src", metavar="SRC", help="absolute path on the host; with / at its end: what is in it")
    parser.add_argument("dst", metavar="DST", help="local path; from several hosts: DST/HOST for each")
    _add_options(parser)


def _add_options(parser: Parser) -> None:
    parser.add_argument("--check", action="store_true", help="say what would be copied, copy nothing")
    parser.add_argument("--delete", action="store_true", help="remove from DST what SRC lacks")
    parser.add_argument(
        "--exclude", metavar="P", action="append", default=[], help="leave out (rsync's patterns); may be repeated"
    )
    parser.add_argument("--bandwidth", metavar="KIB", type=count, help="at most so many KiB a second")
    add_user(parser)
    add_timeout(parser)
    add_json(parser)


def _push(args: argparse.Namespace) -> int:
    if not os.path.lexists(args.src):
        raise UsageError(f"there is no {args.src} here", hint="SRC is local, DST is on the host")

    def step_for(target: Target, several: bool) -> Step:
        from opsexec.steps import Push

        return Push(args.src, args.dst, **_fields(args))

    return drive(lambda: _copy(args, step_for))


def _pull(args: argparse.Namespace) -> int:
    def step_for(target: Target, several: bool) -> Step:
        from opsexec.steps import Pull

        return Pull(args.src, _place(args, target.name) if several else args.dst, **_fields(args))

    return drive(lambda: _copy(args, step_for))


def _place(args: argparse.Namespace, host: str) -> str:
    """Return where one of several hosts' trees goes, making the directories above it."""
    place = os.path.join(args.dst, host)
    if not args.check:
        try:
            os.makedirs(place, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{place} can't be made: {error.strerror}", hint="choose another DST") from error
    return os.path.join(place, "")


def _fields(args: argparse.Namespace) -> dict[str, Any]:
    return {
        "delete": args.delete,
        "excludes": tuple(args.exclude),
        "bandwidth_bytes_s": None if args.bandwidth is None else args.bandwidth * 1024,
        "run_as": args.run_as,
        "timeout_s": args.timeout,
    }


async def _copy(args: argparse.Namespace, step_for: Any) -> int:
    from opsexec.cli.results import conclude
    from opsexec.cli.steps import run_on_hosts

    results = await run_on_hosts(args, step_for, check=args.check)
    if not args.json:
        for result in results:
            _print(result, check=args.check, several=len(results) > 1)
    return conclude(results, as_json=args.json)


def _print(result: Result, *, check: bool, several: bool) -> None:
    """Print the entries that changed, itemised as rsync does, and how many there are."""
    from opsexec.cli.ending import printable, tell

    if result.output is None or not isinstance(result.output.value, dict):
        return
    value = result.output.value
    prefix = f"{result.host} | " if several else ""
    for entry in value["entries"]:
        print(f"{prefix}{printable(entry)}")
    for sentence in value.get("skipped", ()):
        tell(f"{result.host}: {sentence}")
    changes = value["changes"]
    if changes > len(value["entries"]):
        print(f"{prefix}... and {changes - len(value['entries'])} more")
    what = "no change" if not changes else f"{changes} change{'s' if changes > 1 else ''}"
    print(f"{prefix}{what}{' to make' if check and changes else ''} (by {value['method']})")


COMMANDS = (
    Command(
        name="push",
        usage="HOST SRC DST [OPTIONS]",
        summary="Copy a local tree to a host.",
        description="""
        Copy a local file or tree to a host, over the connection that steps use: with rsync, or as a tar stream
        where the host has none. rsync's rule holds: SRC/ copies what is in it, SRC copies it by its name into DST.
        Prints what changed, itemised as rsync does.""",
        arguments=_push_arguments,
        run=_push,
        examples=(
            "opsexec push web ./site/ /srv/site/ --delete",
            "opsexec push 'web,&prod' build/app.tar.gz /srv/releases/ --check",
            "opsexec push web1 ./conf/ /etc/app/ --sudo --exclude '*.bak'",
        ),
    ),
    Command(
        name="pull",
        usage="HOST SRC DST [OPTIONS]",
        summary="Copy a tree from a host.",
        description="""
        Copy a file or tree from a host. From several hosts at once each goes to a directory of its own under DST,
        named as the host.""",
        arguments=_pull_arguments,
        run=_pull,
        examples=(
            "opsexec pull db1 /var/backups/app.sql.gz ./",
            "opsexec pull web /var/log/nginx/ ./logs --exclude '*.gz'",
        ),
    ),
)
