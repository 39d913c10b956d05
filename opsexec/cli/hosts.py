"""`opsexec hosts`: what the inventory holds. `opsexec actions`: the verbs that capabilities are written with."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from opsexec.cli.arguments import add_inventory, add_json
from opsexec.cli.command import Command
from opsexec.cli.drive import drive
from opsexec.cli.json_text import json_text

if TYPE_CHECKING:
    import argparse

    from opsexec.cli.command import Parser
    from opsexec.inventory import InventoryHost


def _arguments(parser: Parser) -> None:
    parser.add_argument("pattern", metavar="PATTERN", nargs="?", help="only the hosts it selects")
    add_inventory(parser)
    parser.add_argument("--names", action="store_true", help="print names and groups alone, one a line")
    add_json(parser)


def _hosts(args: argparse.Namespace) -> int:
    async def work() -> int:
        from opsexec.inventory import Inventory

        inventory = await Inventory.load(args.inventory)
        hosts = list(inventory.hosts.values()) if args.pattern is None else inventory.select(args.pattern)
        if args.json:
            shown = {host.name: as_json(host) for host in hosts}
            print(json_text({"inventory": inventory.file, "hosts": shown}))
        elif args.names:
            for name in {label: None for host in hosts for label in (host.name, *host.labels)}:
                print(name)
        else:
            _print(hosts, inventory.file)
        return 0

    return drive(work)


def _print(hosts: list[InventoryHost], file: str | None) -> None:
    from opsexec.cli.ending import tell
    from opsexec.cli.table import print_table

    if not hosts:
        where = "there is no inventory" if file is None else f"{file} has no hosts"
        tell(where, hint="write [hosts.NAME] with a url into inventory.toml, or name a file with -i")
        return
    rows = [
        [
            host.name,
            host.url,
            " ".join(host.labels) or "-",
            "everything" if host.capabilities is None else " ".join(host.capabilities) or "nothing",
        ]
        for host in hosts
    ]
    print_table(["HOST", "URL", "GROUPS", "CAPABILITIES"], rows)


def as_json(host: InventoryHost) -> dict[str, Any]:
    """Return a host as plain JSON data; of a secret variable, where it comes from."""
    import msgspec

    data: dict[str, Any] = msgspec.to_builtins(host)
    del data["name"]
    return data


def _actions_arguments(parser: Parser) -> None:
    add_json(parser)


def _actions(args: argparse.Namespace) -> int:
    from opsexec.cli.table import print_table
    from opsexec.verbs import VERBS

    if args.json:
        shown = {name: {"resource": verb.kind, "sentence": verb.sentence} for name, verb in VERBS.items()}
        print(json.dumps(shown))
        return 0
    rows = [[name, verb.kind, verb.sentence] for name, verb in VERBS.items()]
    print_table(["VERB", "RESOURCE", "WHAT IT LETS A HOLDER DO"], rows)
    return 0


COMMANDS = (
    Command(
        name="hosts",
        usage="[PATTERN] [OPTIONS]",
        summary="List the hosts of the inventory.",
        description="""
        List the hosts of the inventory, with what may be asked of each. A pattern selects: web (a name or a
        group), 'web*', 'web,db1', 'web,!web3' (but web3), 'web,&prod' (only those also in prod), all.""",
        arguments=_arguments,
        run=_hosts,
        examples=(
            "opsexec hosts",
            "opsexec hosts 'web,&prod' -i production.toml",
            "opsexec hosts --json | jq -r '.hosts | keys[]'",
        ),
    ),
    Command(
        name="actions",
        usage="[OPTIONS]",
        summary="List the verbs that capabilities are written with.",
        description="""
        List the verbs that capabilities (VERB:PATTERN) are written with. RESOURCE says what the pattern is
        matched against: an argv (exec:/usr/bin/df **), a path (fs.write:/srv/**) or a name (shell:app.*).""",
        arguments=_actions_arguments,
        run=_actions,
        examples=("opsexec actions", "opsexec actions --json"),
    ),
)
