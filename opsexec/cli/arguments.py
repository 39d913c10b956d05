"""The options that several commands share: which hosts, how to log in, as whom, how it is reported."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from opsexec.cli.command import count, seconds

if TYPE_CHECKING:
    from opsexec.cli.command import Parser

FORKS = 20


def add_host(parser: Parser, *, many: bool = True) -> None:
    """Add HOST and the options that say how it is found and reached."""
    what = "inventory name, pattern or executor URL" if many else "one host: inventory name or executor URL"
    parser.add_argument("host", metavar="HOST", help=what)
    add_reach(parser, many=many)


def add_reach(parser: Parser, *, many: bool = False) -> None:
    """Add the options that say how a host is found and reached, where HOST itself is read otherwise."""
    add_inventory(parser)
    if many:
        parser.add_argument("--forks", metavar="N", type=count, default=FORKS, help=f"hosts at once (default {FORKS})")
    parser.add_argument(
        "--cap",
        metavar="CAPABILITY",
        action="append",
        default=None,
        help="ask no more of the host than this, like exec:/usr/bin/uptime; repeat for more "
        "(without it: what the inventory grants, everything for a URL)",
    )
    add_ssh(parser)


def add_inventory(parser: Parser) -> None:
    """Add -i."""
    parser.add_argument(
        "-i",
        "--inventory",
        metavar="FILE",
        help="inventory (default: $OPSEXEC_INVENTORY, ./inventory.toml, ~/.config/opsexec/inventory.toml)",
    )


def add_ssh(parser: Parser) -> None:
    """Add the SSH options; each wins over what the inventory says."""
    group = parser.add_argument_group("SSH options")
    group.add_argument(
        "--identity",
        metavar="FILE",
        action="append",
        default=None,
        help="private key to log in with; may be repeated",
    )
    group.add_argument("--known-hosts", metavar="FILE", help="file of known host keys")
    group.add_argument(
        "--accept-new",
        action="store_true",
        help="trust and remember the key of a host seen for the first time",
    )
    group.add_argument("--jump", metavar="HOSTS", help="go through these hosts: user@host:port,...")
    group.add_argument("-F", "--ssh-config", metavar="FILE", help="ssh_config file instead of ~/.ssh/config")
    group.add_argument(
        "--connect-timeout",
        metavar="S",
        type=seconds,
        default=10.0,
        help="seconds a connection may take (default 10)",
    )


def add_user(parser: Parser) -> None:
    """Add --sudo and --as."""
    user = parser.add_mutually_exclusive_group()
    user.add_argument("--sudo", dest="run_as", action="store_const", const="root", help="run as root")
    user.add_argument("--as", dest="run_as", metavar="USER", type=_user, help="run as this user")


def _user(text: str) -> str:
    from opsexec.steps.base import is_user_name

    if not is_user_name(text):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a user name (letters, digits, _ . -)")
    return text


def add_timeout(parser: Parser) -> None:
    """Add --timeout."""
    parser.add_argument(
        "--timeout", metavar="S", type=seconds, help="end it, and all it started, after this many seconds"
    )


def add_process(parser: Parser) -> None:
    """Add what every process step has: environment, directory, user, deadline, check."""
    parser.add_argument("--check", action="store_true", help="say what would be done, do nothing")
    parser.add_argument(
        "--detach",
        action="store_true",
        help="leave it running on the host, print its run's id (needs ops-agent there)",
    )
    add_timeout(parser)
    add_user(parser)
    parser.add_argument(
        "--env",
        metavar="K=V",
        action="append",
        default=[],
        help="set a variable for the program; may be repeated",
    )
    parser.add_argument(
        "--env-secret",
        metavar="NAME",
        action="append",
        default=[],
        help="pass on a secret variable of your own environment, shown nowhere; may be repeated",
    )
    parser.add_argument("--cwd", metavar="DIR", help="directory to run in (default: the home directory)")
    parser.add_argument("-n", "--no-stdin", action="store_true", help="give the program no input, even from a pipe")
    add_json(parser)


def add_json(parser: Parser) -> None:
    """Add --json."""
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
