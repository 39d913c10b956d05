"""What an install leaves behind, so that later the doctor can say what has changed since."""

from __future__ import annotations

import msgspec

from agent.services.probe import Probe, Unreadable
from opsexec.far.match import normalise

RECEIPTS = "/var/lib/ops-agent/services"
"""One directory a service, with `receipt.json` in it; of a user's service it is under their own state directory."""

MARKER = "# managed by ops-agent: service "
"""The first line of every definition we generate, followed by the service's name."""


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """`files`: path -> sha256 of all that was installed; provenance as declared; times are RFC 3339."""

    schema: int
    name: str
    installed_at: str
    files: dict[str, str]
    unit: str = ""
    uninstall: list[list[str]] = []
    quarantine: list[list[str]] = []
    image_id: str | None = None
    image: str | None = None
    source_image: str | None = None
    pulled_at: str | None = None
    runtime_auth: str | None = None
    pull_auth: str | None = None
    agent: str | None = None


async def read_receipt(probe: Probe, directory: str, name: str) -> Receipt | None:
    """Return the receipt of a service; None where it was not installed by us. Raises Unreadable for a bad one."""
    path = normalise(f"{directory}/{name}/receipt.json")
    if not (await probe.stat(path)).exists:
        return None
    file = await probe.read(path)
    try:
        return msgspec.json.decode(file.data, type=Receipt)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise Unreadable(f"{path} is no receipt: {error}") from error
