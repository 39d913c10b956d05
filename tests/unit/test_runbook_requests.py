"""What is asked of a runbook and makes no sense is refused before a host is contacted, with what to do instead."""

from __future__ import annotations

import pytest

from opsexec import CapabilityDenied, Inventory, OpsError, Runbook
from opsexec.errors import BadInventory, UsageError
from opsexec.inventory import InventoryHost

pytestmark = pytest.mark.anyio
HOSTS = Inventory([InventoryHost(name=name, url="local:") for name in ("web1", "web2", "db1")])


def book(steps: str, head: str = "") -> Runbook:
    return Runbook.parse(f"name: t\nhosts: web*\n{head}steps:\n{steps}", "r.yaml")


async def refused(runbook: Runbook, **options: object) -> tuple[str, str]:
    with pytest.raises(OpsError) as caught:
        await runbook.run(HOSTS, check=True, **options)  # type: ignore[arg-type]  # passed on as they are
    assert isinstance(caught.value, (UsageError, CapabilityDenied))
    return caught.value.message, str(caught.value.hint)


async def test_a_tag_that_no_step_has_is_an_error_not_a_run_of_nothing() -> None:
    runbook = book("  - exec: [id]\n    tags: [config, restart]\n")
    message, hint = await refused(runbook, tags=["config", "restrat"])
    assert message == "no step has the tag 'restrat'"
    assert hint == "did you mean 'restart'?"


async def test_a_limit_says_whether_the_name_or_the_runbook_is_at_fault() -> None:
    runbook = book("  - exec: [id]\n")
    assert (await refused(runbook, limit="wbe1"))[1] == 'did you mean "web1"?'
    assert await refused(runbook, limit="db1") == (
        "--limit 'db1' leaves none of the runbook's hosts, or names others", "they are: web*"
    )  # fmt: skip


async def test_a_denied_bare_program_is_granted_by_its_path() -> None:
    """`exec:id` would be refused as a capability: a hint must not lead there."""
    message, hint = await refused(book("  - exec: [id]\n", 'capabilities: ["exec:/usr/bin/uptime"]\n'))
    assert "needs exec:id" in message
    assert "exec:/usr/bin/id" in hint
    message, hint = await refused(book("  - remove: /x\n", 'capabilities: ["exec:/usr/bin/uptime"]\n'))
    assert hint == 'add "fs.remove:/x" to the runbook\'s capabilities if this is wanted'


def test_a_url_that_is_no_text_is_not_said_to_be_missing() -> None:
    with pytest.raises(BadInventory, match=r"i\.toml:2: host 'a' has a url that is no text"):
        Inventory.parse("[hosts.a]\nurl = 3\n", "i.toml")
