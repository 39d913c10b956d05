"""What `ops-agent whoami` prints of an agent's answer, which is another host's word."""

from __future__ import annotations

from typing import Any

import msgspec

from opsexec.cli.ending import printable
from opsexec.errors import ProtocolError


class Held(msgspec.Struct, frozen=True):
    """One grant."""

    capabilities: list[str]
    run_as: list[str]


class Who(msgspec.Struct, frozen=True):
    """The answer, as far as it is printed."""

    host: str
    principal: str
    listener: str
    grants: list[Held]


def whoami_text(answer: dict[str, Any]) -> str:
    """Return an answer as lines of plain text; raises ProtocolError for what is none."""
    try:
        found = msgspec.convert(answer, Who)
    except msgspec.ValidationError as error:
        raise ProtocolError(
            f"the agent doesn't say who you are: {error}", hint="is this ops-agent's socket?"
        ) from error
    lines = [f"{found.principal} on {found.host} ({found.listener})"]
    for number, grant in enumerate(found.grants, 1):
        lines += [f"  grant {number}: {text}" for text in grant.capabilities]
        lines += [f"  grant {number}: as {user}" for user in grant.run_as]
    return "\n".join("  " * line.startswith(" ") + printable(line) for line in lines)
