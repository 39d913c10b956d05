"""agent.*: the ops-agent on this host."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from agent.services.check import check
from agent.services.finding import Evidence, Fix, Ruling, failed, passed, skipped, warned
from agent.services.look import Look
from agent.services.probe import Unreadable

if TYPE_CHECKING:
    from agent.config import Config

CONFIG = "/etc/ops-agent/config.toml"
AFTER = ("agent.config",)
AUDIT_BYTES = 32 << 20
SKEW_S = 30.0
TAILSCALED = ("/run/tailscale/tailscaled.sock", "/var/run/tailscale/tailscaled.sock")


async def config_of(look: Look) -> Config | None:
    """Return the agent's configuration; None where none is there. Raises Unreadable."""
    from agent.config import parse_config
    from agent.errors import BadConfig

    if not (await look.probe.stat(CONFIG)).exists:
        return None
    file = await look.probe.read(CONFIG)
    try:
        return parse_config(file.text, CONFIG)
    except BadConfig as error:
        raise Unreadable(error.message, Evidence(path=CONFIG), root="agent.config") from error


NONE_HERE = "no ops-agent is configured here"


@check("agent.config", "host", reads=f"{CONFIG}: owner, mode, and whether it can be used", severity="high",
       fails_when="somebody else may read or change it, or the agent would refuse it")  # fmt: skip
async def config(look: Look) -> Ruling:
    """Rule on the configuration file."""
    stat = await look.probe.stat(CONFIG)
    at = Evidence(path=CONFIG)
    if not stat.exists:
        return skipped(NONE_HERE)
    if int(stat.mode, 8) & 0o077 or stat.uid != 0:
        fix = Fix(text="close it", argv=("chmod", "600", CONFIG), safe=True)
        return failed(f"it has mode {stat.mode} and belongs to {stat.owner}", at, fix=fix)
    try:
        await config_of(look)
    except Unreadable as error:
        return failed(error.reason, at)
    return passed("the agent takes it", at)


@check("agent.ceiling", "host", reads="the grants of the configuration", severity="high", after=AFTER,
       fails_when="there is no grant, or one lets its holder do everything")  # fmt: skip
async def ceiling(look: Look) -> Ruling:
    """Rule on the grants."""
    found = await config_of(look)
    if found is None:
        return skipped(NONE_HERE)
    if not found.grants:
        return failed("nobody has a grant", Evidence(path=CONFIG))
    wide = [each.principal for each in found.grants if {"exec:**", "shell:*"} & set(each.capabilities)]
    if wide:
        return warned(f"{wide[0]} may run anything", Evidence(path=CONFIG))
    return passed(f"{len(found.grants)} grants")


@check("agent.sockets", "host", reads="the agent's unix sockets: kind, mode", severity="high", after=AFTER,
       fails_when="anyone may connect, or no agent is there")  # fmt: skip
async def sockets(look: Look) -> Ruling:
    """Rule on the sockets the agent listens on."""
    found = await config_of(look)
    if found is None:
        return skipped(NONE_HERE)
    paths = [each.removeprefix("unix:") for each in found.agent.listen if each.startswith("unix:")]
    if not paths:
        return skipped("it listens on no unix socket")
    for path in paths:
        stat = await look.probe.stat(path)
        if not stat.exists or stat.kind != "socket":
            return failed(f"no agent listens on {path}", Evidence(path=path))
        if int(stat.mode, 8) & 0o007:
            return warned(f"anyone may connect to {path} (mode {stat.mode})", Evidence(path=path))
    return passed(f"{len(paths)} sockets")


@check("agent.tailnet", "host", reads="tailscaled's socket", after=AFTER,
       fails_when="the agent listens on the tailnet, and no tailscaled answers here")  # fmt: skip
async def tailnet(look: Look) -> Ruling:
    """Rule on what proves tailnet identities."""
    found = await config_of(look)
    if found is None or not any(each.startswith("tailnet:") for each in found.agent.listen):
        return skipped("it doesn't listen on the tailnet" if found else NONE_HERE)
    for path in TAILSCALED:
        stat = await look.probe.stat(path)
        if stat.exists and stat.kind == "socket":
            return passed("tailscaled's socket is there", Evidence(path=path))
    return failed("there is no tailscaled to ask who connects", Evidence(path=TAILSCALED[0]))


@check("agent.audit", "host", reads="the state directory's mode; the audit chain, link by link", severity="high",
       after=AFTER, fails_when="a line was changed, or others may write there")  # fmt: skip
async def audit(look: Look) -> Ruling:
    """Verify the chain as it is on disk now."""
    from opsexec.audit.verify import verify

    found = await config_of(look)
    if found is None:
        return skipped(NONE_HERE)
    state = await look.probe.stat(found.agent.state_dir)
    at = Evidence(path=found.agent.state_dir)
    if not state.exists:
        return failed("its state directory doesn't exist: it has never run", at)
    if int(state.mode, 8) & 0o022:
        return failed(f"others may write to its state directory (mode {state.mode})", at)
    file = await look.probe.read(f"{found.agent.state_dir}/audit.jsonl", max_bytes=AUDIT_BYTES)
    with tempfile.TemporaryDirectory(prefix="ops-agent-doctor-") as aside:
        copy = Path(aside) / "audit.jsonl"
        copy.write_bytes(file.data[: file.data.rfind(b"\n") + 1])  # a line may be under way
        report = verify(copy)
    if not report.ok:
        return failed(f"the audit chain is broken at line {report.problem.line if report.problem else 0}", at)
    return passed(f"{report.lines} audit lines, unbroken", at)


@check("agent.clock", "host", reads="the host's clock and the caller's",
       fails_when="they differ by more than 30 s: their audits can't be put side by side", severity="low")  # fmt: skip
async def clock(look: Look) -> Ruling:
    """Compare clocks."""
    before = time.time()
    sample = await look.probe.moment()
    after = time.time()
    skew = 0.0 if before <= sample <= after else min(abs(sample - before), abs(sample - after))
    if skew > SKEW_S:
        fix = Fix(text="synchronise it", argv=("timedatectl", "set-ntp", "true"), safe=True)
        return warned(f"the host's clock is {skew:.0f} s off the caller's", fix=fix)
    return passed(f"the clocks agree ({skew:.1f} s)")
