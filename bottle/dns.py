"""What a plan asks of the bundle's resolver: the daemon's configuration. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bottle.credentials import Credentials
from bottle.plan import BottlePlan
from opsexec.secret import reveal

DAEMON = "dns"
PORT = 53
NAMES = ("bundle", "egress", "git-gate", "pipelock", "supervise")
"""What the resolver may be asked for: the bundle's daemons, by their names, all of them where the bundle is."""


def configuration(
    plan: BottlePlan, secrets: Credentials, addresses: Sequence[str], listen: str | None = None
) -> dict[str, Any]:
    """Return what the daemon reads on its stdin. `addresses`: the bundle's, as the agent reaches it; `listen`: where.

    It holds the values that no line may show.
    """
    known: Mapping[str, Any] = {**secrets.tokens, **secrets.env}
    return {
        "bottle": plan.identity,
        "address": listen,
        "port": PORT,
        "names": {name: list(addresses) for name in NAMES},
        "known": [[name, reveal(value)] for name, value in known.items()],
    }
