"""image.*: the image a service runs."""

from __future__ import annotations

from typing import Any

from agent.services.check import check
from agent.services.checks.podman import CHAIN, link_of
from agent.services.command_line import is_remote_image
from agent.services.finding import Evidence, Fix, Ruling, failed, passed, skipped, unknown, warned
from agent.services.look import Look
from agent.services.probe import Unreadable


async def image_inspected(look: Look, reference: str) -> dict[str, Any]:
    """Return `podman image inspect`; raises Unreadable."""
    said = await look.probe.ask("podman.image", reference, connection=link_of(look))
    found = said.json()
    if not isinstance(found, list) or not found or not isinstance(found[0], dict):
        raise Unreadable("podman's answer about the image makes no sense", said.evidence)
    return found[0]


@check(
    "image.present", "service", reads="`podman image exists REF`, by its status: 0, 1 or 125",
    fails_when="the image isn't here, and may not be pulled", severity="high", after=CHAIN, blocks=True,
)  # fmt: skip
async def present(look: Look) -> Ruling:
    """Rule on whether the declared image is on the host."""
    declared = look.declared
    if declared is None or declared.runtime != "podman" or not declared.image:
        return skipped("no image is declared")
    said = await look.probe.ask("podman.image-exists", declared.image, connection=link_of(look))
    if said.rc == 0:
        return passed(f"{declared.image} is here", said.evidence)
    if said.rc != 1:
        return unknown("podman can't say whether the image is here", said.evidence)
    if declared.podman.pull == "never" or declared.podman.require_local_image:
        fix = Fix(text="build it, or pull it by hand once and tag it localhost/NAME")
        return failed(f"{declared.image} isn't here, and may not be pulled", said.evidence, fix=fix)
    return warned(f"{declared.image} isn't here, and will be pulled", said.evidence)


@check(
    "image.policy", "service", reads="the image's reference in the declaration",
    fails_when="it may be answered by a registry, while pulling is declared never", severity="high", blocks=True,
)  # fmt: skip
async def policy(look: Look) -> Ruling:
    """Rule on the reference itself."""
    declared = look.declared
    if declared is None or not declared.image:
        return skipped("no image is declared")
    if not is_remote_image(declared.image):
        return passed(f"{declared.image} is a local image")
    if declared.podman.pull == "never" and declared.auth.mode != "service-account":
        return failed(
            f"{declared.image} is a registry's image", fix=Fix(text="tag it localhost/NAME, and declare that")
        )
    return warned(f"{declared.image} is a registry's image")


@check(
    "image.provenance", "service", reads="`podman image inspect` .Id, the receipt",
    fails_when="the image is another one than was there at the install", after=("image.present",),
)  # fmt: skip
async def provenance(look: Look) -> Ruling:
    """Compare the image with the receipt."""
    declared, receipt = look.declared, look.service.receipt
    if declared is None or not declared.image:
        return skipped("no image is declared")
    if receipt is None or receipt.image_id is None:
        return skipped("no receipt names its image")
    found = str((await image_inspected(look, declared.image)).get("Id", ""))
    if found.removeprefix("sha256:") != receipt.image_id.removeprefix("sha256:"):
        evidence = Evidence(excerpt=f"now {found[:80]}, installed with {receipt.image_id[:80]}")
        return warned(f"{declared.image} is another image than was installed", evidence)
    return passed("the image is the one that was installed")
