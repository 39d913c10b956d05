"""runtime.canary: the runtime tried with the declared image. It starts something, so it must be asked for by name."""

from __future__ import annotations

from agent.services.check import check
from agent.services.checks.podman import CHAIN, link_of
from agent.services.finding import Fix, Ruling, failed, passed, skipped, unknown
from agent.services.look import Look
from agent.services.probe import Said

TIMEOUT_S = 15.0
MEANINGS = {
    125: "podman itself could not start it",
    126: "its program can't be executed, or the runtime refused it",
    127: "it has no such program",
}
"""Exit statuses of `podman run` that are podman's own, podman-run(1)."""


def judge(said: Said) -> Ruling:
    """Rule on how the trial ended; another status than podman's own is the image's program speaking."""
    if said.rc == 0:
        return passed("a container of the image runs", said.evidence)
    meaning = MEANINGS.get(said.rc)
    if meaning is None:
        return unknown(f"the trial ended with {said.rc}", said.evidence)
    return failed(f"no container of the image runs: {meaning}", said.evidence, fix=Fix(text="read what podman says"))


@check(
    "runtime.canary", "service", reads="`podman run --rm --network=none --pull=never IMAGE true`, by an exec grant",
    fails_when="no container of the declared image runs", severity="high", after=(*CHAIN, "image.present"), opt_in=True,
)  # fmt: skip
async def canary(look: Look) -> Ruling:
    """Run a container of the image that does nothing."""
    declared = look.declared
    if declared is None or declared.runtime != "podman" or not declared.image:
        return skipped("no image is declared")
    link = link_of(look)
    argv = ["podman", *(["--connection", link] if link else []), "run", "--rm", "--network=none", "--pull=never"]
    if declared.auth.authfile:
        argv += ["--authfile", declared.auth.authfile]
    # What follows the image is its program: a reference that begins with a dash never gets here (image.present).
    return judge(await look.probe.run([*argv, declared.image, "true"], timeout_s=TIMEOUT_S))
