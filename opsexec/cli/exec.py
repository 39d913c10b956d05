"""`opsexec exec` and `opsexec shell`: a program, or a script as a named action, on one host or many."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from opsexec.cli.arguments import add_host, add_process
from opsexec.cli.command import Command
from opsexec.cli.drive import drive
from opsexec.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from opsexec.cli.command import Parser
    from opsexec.steps import Step


def _exec_arguments(parser: Parser) -> None:
    add_host(parser)
    add_process(parser)


def _exec(args: argparse.Namespace) -> int:
    if not args.program:
        raise UsageError("no program was given", hint="write it after --, like: opsexec exec HOST -- uptime")

    from opsexec.cli.steps import process_fields
    from opsexec.steps import Exec

    return _do(args, Exec(tuple(args.program), **process_fields(args)), reads_stdin=not args.no_stdin)


def _do(args: argparse.Namespace, step: Step, *, reads_stdin: bool) -> int:
    if args.detach:
        from opsexec.cli.detach import start_detached

        return start_detached(args, step, reads_stdin=reads_stdin)

    async def work() -> int:
        from opsexec.cli.steps import run_and_conclude

        return await run_and_conclude(args, lambda *_: step, reads_stdin=reads_stdin, check=args.check)

    return drive(work)


def _shell_arguments(parser: Parser) -> None:
    add_host(parser)
    parser.add_argument("script", metavar="SCRIPT", help="file that holds the script; - reads it from stdin")
    parser.add_argument("-c", dest="is_text", action="store_true", help="SCRIPT is the script's text itself")
    parser.add_argument("--action", metavar="NAME", required=True, help="what it is called in grants and in the audit")
    parser.add_argument("--sha256", metavar="HEX", help="refuse to run a script that has another digest")
    parser.add_argument("--bash", action="store_true", help="run it with /bin/bash instead of /bin/sh")
    add_process(parser)


def _shell(args: argparse.Namespace) -> int:
    from opsexec.cli.steps import process_fields
    from opsexec.steps import Shell

    step = Shell(
        action=args.action,
        script=_script(args),
        sha256=args.sha256,
        interpreter="/bin/bash" if args.bash else "/bin/sh",
        **process_fields(args),
    )
    return _do(args, step, reads_stdin=(args.is_text or args.script != "-") and not args.no_stdin)


def _script(args: argparse.Namespace) -> str:
    """Return the script's text from where the command line says it is; raises UsageError."""
    if args.is_text:
        return str(args.script)
    try:
        if args.script == "-":
            return sys.stdin.buffer.read().decode()
        with open(args.script, "rb") as file:
            return file.read().decode()
    except OSError as error:
        raise UsageError(
            f"the script {args.script} can't be read: {error.strerror}",
            hint="SCRIPT is a file; with -c it is the text itself",
        ) from error
    except UnicodeDecodeError as error:
        raise UsageError(
            f"the script {args.script} is not UTF-8 at byte {error.start}", hint="save it as UTF-8"
        ) from error


COMMANDS = (
    Command(
        name="exec",
        usage="HOST [OPTIONS] -- ARGV...",
        summary="Run one program with exactly these arguments, no shell in between.",
        description="""
        Run one program with exactly these arguments on a host, or on every host of a pattern at once.

        No shell stands in between: ARGV reaches the program as it is. One host: its output is this command's
        own, byte for byte, and what is piped in is streamed to it. Several hosts: each line comes as
        `host | line`, and nothing is piped in. The exit code is 1 when the program failed; its own status is
        on stderr and in --json. With --detach the program lives on, also without this command: its run's id is
        what is printed, for `opsexec runs attach`.""",
        arguments=_exec_arguments,
        run=_exec,
        takes_program=True,
        examples=(
            "opsexec exec web1 -- uptime",
            "opsexec exec 'web,&prod,!web3' --forks 50 -- systemctl is-active nginx",
            "opsexec exec db1 --as postgres -- pg_dump app > app.sql",
            "opsexec exec ssh://deploy@10.0.0.5:2222 --timeout 30 -- /srv/app/bin/migrate",
            "DB_PASSWORD=... opsexec exec db1 --env-secret DB_PASSWORD -- /srv/app/bin/check-db",
            "opsexec exec web1 --detach -- /srv/app/bin/reindex",
            "opsexec exec local: --cap 'exec:/usr/bin/df **' --json -- df -h",
        ),
    ),
    Command(
        name="shell",
        usage="HOST --action NAME [OPTIONS] SCRIPT|-",
        summary="Run a shell script as a named action.",
        description="""
        Run a shell script as a named action: it needs the capability shell:NAME, which a grant may pin to the
        script's sha256. Values reach it as environment (--env), never spliced into its text.""",
        arguments=_shell_arguments,
        run=_shell,
        examples=(
            "opsexec shell web --action nginx.reload reload.sh",
            "opsexec shell web1 --action cache.clear -c 'rm -rf /var/cache/app/*'",
            "opsexec shell web1 --action app.promote --sha256 9f86d081884c7d65... promote.sh",
            "generate-script | opsexec shell web1 --action generated -",
        ),
    ),
)
