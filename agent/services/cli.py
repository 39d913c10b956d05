"""`ops-agent doctor` and `ops-agent preflight`: arguments, output, exit status."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent.services.doctor import Examined, Request

COMMANDS = ("doctor", "preflight")
FAIL_ON = ("fail", "warn", "unknown", "info", "never")
EPILOG = """examples:
  ops-agent doctor web
  ops-agent doctor local-runtime --format json
  ops-agent doctor web --host ssh://root@web1 --only svc,lint.log-tmp
  ops-agent doctor local-runtime --only persist --save-baseline before.json
  ops-agent doctor local-runtime --only persist --root /mnt/image --baseline before.json

exit status: 0 clean, 1 findings at or above --fail-on, 2 usage, 3 could not run"""


def add_commands(commands: Any) -> None:
    """Add the commands to `ops-agent`'s own."""
    raw = argparse.RawDescriptionHelpFormatter
    doctor = commands.add_parser(
        "doctor", help="check a service, or the host's runtime", epilog=EPILOG, formatter_class=raw
    )
    doctor.add_argument("name", metavar="NAME", nargs="?", help="a service, or local-runtime for the whole host")
    doctor.add_argument("--list-checks", action="store_true", help="list every check, and stop")
    doctor.add_argument("--root", metavar="DIR", default="/", help="sweep a mounted image or backup for persistence")
    doctor.add_argument("--baseline", metavar="FILE", help="compare the persistence sweep with this")
    doctor.add_argument("--save-baseline", metavar="FILE", help="save what the sweep sees, for later")
    _shared(doctor)
    preflight = commands.add_parser("preflight", help="say whether a declared service may be installed and started")
    preflight.add_argument("name", metavar="NAME", help="a declared service")
    _shared(preflight)


def _shared(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--only",
        metavar="ID",
        action="append",
        default=[],
        help="only these checks: ids, families, globs; repeat, or use commas",
    )
    add("--fail-on", choices=FAIL_ON, default="fail", help="exit 1 from this verdict on (default fail)")
    add("--format", choices=("human", "json", "ndjson", "sarif"), default="human", help="how it is reported")
    add("-v", "--verbose", action="store_true", help="also show what passes or doesn't apply")
    add_connection(parser)


def add_connection(parser: argparse.ArgumentParser) -> None:
    """Add what every service command takes: which host, whose eyes, which declaration."""
    add = parser.add_argument
    add("--host", metavar="HOST", default=argparse.SUPPRESS, help="inventory name or executor URL (default: local:)")
    add("--user", action="store_true", help="ask the login's own service manager")
    add("--as", dest="run_as", metavar="USER", help="look with this user's eyes")
    add("--declaration", metavar="FILE", help="use this declaration, not the host's own")
    add("-i", "--inventory", metavar="FILE", help="inventory that --host is looked up in")
    add("--cap", metavar="CAPABILITY", action="append", default=None, help="ask no more of the host than this; repeat")
    add("--identity", metavar="FILE", action="append", default=None, help="SSH private key; may be repeated")
    add("--known-hosts", metavar="FILE", help="file of known host keys")
    add("--accept-new", action="store_true", help="trust and remember the key of a host seen for the first time")
    add("--jump", metavar="HOSTS", help="go through these hosts: user@host:port,...")
    add("-F", "--ssh-config", metavar="FILE", help="ssh_config file instead of ~/.ssh/config")
    add("--connect-timeout", metavar="S", type=float, default=10.0, help="seconds a connection may take (default 10)")


async def run(arguments: argparse.Namespace) -> int:
    """Run one of the commands; returns the exit status, raises OpsError."""
    if arguments.command == "doctor" and arguments.list_checks:
        return _list_checks(arguments.format)
    from opsexec.errors import UsageError

    if arguments.name is None:
        raise UsageError("doctor needs a NAME", hint="a service, or local-runtime for the whole host")
    request = _request(arguments)
    examined, snapshot = await _examine(arguments, request)
    if snapshot is not None:
        _save(arguments.save_baseline, snapshot)
    _write(arguments, examined)
    if arguments.command == "preflight":
        return _preflight(examined)
    return _status(arguments.fail_on, examined)


def _request(arguments: argparse.Namespace) -> Request:
    from agent.services.doctor import LOCAL_RUNTIME, Request
    from agent.services.look import Options
    from opsexec.capability import clean_path
    from opsexec.errors import UsageError

    only = tuple(word for text in arguments.only for word in text.split(",") if word)
    declaration = None
    if arguments.declaration is not None:
        from agent.services.declaration import parse_declaration

        declaration = parse_declaration(read_file(arguments.declaration), arguments.declaration)
    if arguments.command == "preflight" or arguments.name != LOCAL_RUNTIME:
        if any(getattr(arguments, name, None) not in (None, "/") for name in ("root", "baseline", "save_baseline")):
            raise UsageError("--root and baselines go with local-runtime", hint="see `ops-agent doctor --help`")
        return Request(arguments.name, only, arguments.user, declaration, run_as=arguments.run_as)
    from agent.services.persistence import read_baseline

    baseline = None if arguments.baseline is None else read_baseline(read_file(arguments.baseline), arguments.baseline)
    root = clean_path(str(Path(arguments.root).absolute()) if "host" not in arguments else arguments.root)
    if root != "/" and not only:
        only = ("persist",)  # everything else would look at this host, not at the image
    options = Options(root, baseline, arguments.baseline or "")
    return Request(arguments.name, only, arguments.user, declaration, options, arguments.run_as)


def read_file(file: str) -> bytes:
    """Return a file of the caller's own machine; raises UsageError."""
    from opsexec.errors import UsageError

    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise UsageError(f"{file} can't be read: {error.strerror}", hint="name an existing file") from error


async def _examine(arguments: argparse.Namespace, request: Request) -> tuple[Examined, dict[str, str] | None]:
    from agent.services.doctor import examine
    from opsexec.cli.targets import find_target, open_executor

    arguments.host = getattr(arguments, "host", None) or "local:"
    target = await find_target(arguments)
    async with open_executor(target, arguments) as executor:
        snapshot = None
        if getattr(arguments, "save_baseline", None) is not None:
            from agent.services.checks.persist import snapshot as take
            from agent.services.look import Look
            from agent.services.probe import Probe

            snapshot = await take(Look(Probe(executor, run_as=request.run_as), options=request.options))
        return await examine(executor, request), snapshot


def _save(file: str, entries: dict[str, str]) -> None:
    import os

    from agent.services.persistence import write_baseline
    from opsexec.errors import UsageError

    try:
        fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w") as out:
            out.write(write_baseline(entries))
    except OSError as error:
        raise UsageError(f"{file} can't be written: {error.strerror}", hint="name another file") from error


def _write(arguments: argparse.Namespace, examined: Examined) -> None:
    from agent.services import report
    from opsexec import __version__

    if arguments.format == "json":
        text = report.as_json(examined.host, examined.findings)
    elif arguments.format == "ndjson":
        text = report.as_ndjson(examined.host, examined.findings)
    elif arguments.format == "sarif":
        text = report.as_sarif(examined.host, examined.findings, examined.checks, __version__)
    else:
        text = report.human(examined.host, examined.findings, verbose=arguments.verbose)
    sys.stdout.write(text)
    sys.stdout.flush()


def _status(fail_on: str, examined: Examined) -> int:
    from agent.services.finding import WEIGHT
    from agent.services.report import worst

    return 0 if fail_on == "never" else int(worst(examined.findings) >= WEIGHT[fail_on])


def _preflight(examined: Examined) -> int:
    blocking = [each for each in examined.findings if each.blocks_preflight]
    names = ", ".join(dict.fromkeys(each.id for each in blocking))
    print(f"preflight: not passed ({names})" if blocking else "preflight: passed", file=sys.stderr)
    return int(bool(blocking))


def _list_checks(form: str) -> int:
    from agent.services.check import checks

    rows = checks()
    if form == "json":
        import json

        fields = ("id", "scope", "severity", "reads", "fails_when", "platforms", "after", "blocks")
        print(json.dumps([{name: getattr(each, name) for name in fields} for each in rows], indent=1))
        return 0
    for each in rows:
        blocks = "  [blocks preflight]" if each.blocks else ""
        print(f"{each.id:26} {'+'.join(each.platforms):13} {each.fails_when}{blocks}")
    return 0
