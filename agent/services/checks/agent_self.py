"""agent.*: the ops-agent on this host."""

from __future__ import annotations

import re
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from agent.services.check import check
from agent.services.finding import Evidence, Fix, Ruling, failed, passed, skipped, warned
from agent.services.look import Look
from agent.services.probe import Said, Unreadable

if TYPE_CHECKING:
    from agent.config import Config
    from agent.principal import UidOf
    from opsexec.hosts.tailnet_status import Status

CONFIG = "/etc/ops-agent/config.toml"
PASSWD = "/etc/passwd"
AFTER = ("agent.config",)
AUDIT_BYTES = 64 << 20
"""Of all segments together; more is left to `ops-agent audit verify` on the host itself."""

SKEW_S = 30.0


async def config_of(look: Look) -> Config | None:
    """Return the agent's configuration; None where none is there. Raises Unreadable."""
    if not (await look.probe.stat(CONFIG)).exists:
        return None
    from agent.config import parse_config_bytes  # takes as long as half of all checks
    from agent.errors import BadConfig

    file = await look.probe.read(CONFIG)
    uid_of = await users_of(look)
    try:
        return parse_config_bytes(file.data, CONFIG, uid_of)
    except BadConfig as error:
        raise Unreadable(error.message, Evidence(path=CONFIG), root="agent.config") from error


async def users_of(look: Look) -> UidOf:
    """Return what says the uids of the host's users. Of another host's name services only /etc/passwd is read: what it
    says raises Unreadable for a name that isn't there."""
    from agent.principal import uid_here
    from opsexec.local import LocalExec

    if isinstance(look.probe.executor, LocalExec):
        return uid_here
    try:
        lines = [line.split(":") for line in (await look.probe.read(PASSWD)).text.splitlines()]
    except Unreadable:
        lines = []  # then no name is known
    known = {fields[0]: int(fields[2]) for fields in lines if len(fields) > 2 and fields[2].isdecimal()}

    def uid_of(name: str) -> int:
        if name not in known:
            raise Unreadable(f"whether the host has a user {name[:40]!r} isn't known", Evidence(path=PASSWD))
        return known[name]

    return uid_of


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
        if error.root != "agent.config":
            raise  # nobody can say what is in it
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


def node_of(said: Said) -> Status:
    """Return this node from `tailscale status --json`; raises Unreadable, also while it isn't connected."""
    from opsexec.hosts.local_api import TailnetUnavailable
    from opsexec.hosts.tailnet_status import read_status

    try:
        return read_status(said.json())
    except TailnetUnavailable as error:
        raise Unreadable(error.message, said.evidence, hint=error.hint) from error
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise Unreadable("tailscaled gave a status that can't be read", said.evidence) from error


def judge_whois(said: Said, node: Status) -> Ruling:
    """Rule on what tailscaled says of this node's own address: it is whose word every caller's identity rests on."""
    from datetime import UTC, datetime

    from opsexec.hosts.tailnet_node import Nobody, read_whois

    if said.rc != 0:
        return failed("tailscaled doesn't know whose this node's own address is", said.evidence)
    try:
        found = read_whois(said.out.encode(), datetime.now(UTC))
    except Nobody as error:
        return failed(f"tailscaled vouches for nobody at this node's own address: {error}", said.evidence)
    if not set(found.addresses) & set(node.self.addresses):
        return failed("tailscaled says another node has this one's address", said.evidence)
    return passed(f"tailscaled knows this node as {found.name or found.id}", said.evidence)


@check("agent.tailnet", "host", reads="tailscaled's socket; `tailscale status` and `whois` of this node", after=AFTER,
       fails_when="the agent listens on the tailnet, and no tailscaled says who this node is")  # fmt: skip
async def tailnet(look: Look) -> Ruling:
    """Rule on what proves tailnet identities."""
    found = await config_of(look)
    if found is None or not any(each.startswith("tailnet:") for each in found.agent.listen):
        return skipped("it doesn't listen on the tailnet" if found else NONE_HERE)
    path = found.tailnet.socket
    at = Evidence(path=path)
    stat = await look.probe.stat(path)
    if not stat.exists or stat.kind != "socket":
        return failed("there is no tailscaled to ask who connects", at)
    if stat.uid not in (0, await look.uid()):
        return failed(f"tailscaled's socket belongs to {stat.owner}: whoever that is names every caller", at)
    try:
        said = await look.probe.ask("tailnet.status", path)
    except Unreadable:
        # `tailscale` waits for a tailscaled that died without a word; its socket says so at once.
        if (await look.probe.ping(path)).state == "refused":
            return failed("nothing listens on tailscaled's socket: it has died (ECONNREFUSED)", at)
        raise
    try:
        node = node_of(said)
    except Unreadable as error:
        fix = Fix(text="connect it", argv=("tailscale", "up"))
        return failed(f"this node is not on its tailnet: {error.reason}", *error.evidence, at, fix=fix)
    if not node.self.addresses:
        return failed("tailscaled gives this node no address", said.evidence, at)
    return judge_whois(await look.probe.whois(path, str(node.self.addresses[0])), node)


LOG = "audit.jsonl"
SEGMENT = re.compile(re.escape(LOG) + r"\.[0-9]{16}\Z")


async def segments(look: Look, directory: str) -> list[str]:
    """Return the names of the closed segments of the audit, oldest first; raises Unreadable where all are too much."""
    listed = await look.probe.survey(directory, max_entries=4000)
    if listed.cut:
        raise Unreadable(f"{directory} holds too much to be listed", Evidence(path=directory))
    sizes = {each.path.rpartition("/")[2]: each.size for each in listed.entries}
    closed = sorted(name for name in sizes if SEGMENT.match(name))
    whole = sum(sizes[name] for name in closed) + sizes.get(LOG, 0)
    if whole > AUDIT_BYTES:  # what would not come to an answer isn't begun
        text = f"the audit has {whole >> 20} MiB, of which {AUDIT_BYTES >> 20} are read"
        raise Unreadable(text, Evidence(path=f"{directory}/{LOG}"), hint="run `opsexec audit verify` on the host")
    return closed


async def whole_chain(look: Look, directory: str) -> dict[str, bytes]:
    """Return every segment's content by name, the one that is written to last; raises Unreadable for too many bytes."""
    found: dict[str, bytes] = {}
    left = AUDIT_BYTES
    for name in [*await segments(look, directory), LOG]:
        file = await look.probe.read(f"{directory}/{name}", max_bytes=max(1, left))
        left -= len(file.data)
        found[name] = file.data
    active = found[LOG]
    found[LOG] = active[: active.rfind(b"\n") + 1]  # a line may be under way
    return found


@check("agent.audit", "host", reads="the state directory's mode, whether it reaches the disk; the whole audit chain",
       severity="high", after=AFTER,
       fails_when="a line was changed or a segment is gone, others may write there, or it can't be synced")  # fmt: skip
async def audit(look: Look) -> Ruling:
    """Verify the chain as it is on disk now, from its oldest segment on."""
    from opsexec.audit.verify import verify

    found = await config_of(look)
    if found is None:
        return skipped(NONE_HERE)
    directory = found.agent.state_dir
    state = await look.probe.stat(directory)
    at = Evidence(path=directory)
    if not state.exists:
        return failed("its state directory doesn't exist: it has never run", at)
    if int(state.mode, 8) & 0o022:
        return failed(f"others may write to its state directory (mode {state.mode})", at)
    synced = await look.probe.ask("fs.sync", directory)
    if synced.rc != 0:
        return failed("its state directory can't be put on the disk: no audit line is safe there", synced.evidence, at)
    chain = await whole_chain(look, directory)
    with tempfile.TemporaryDirectory(prefix="ops-agent-doctor-") as aside:
        for name, data in chain.items():
            (Path(aside) / name).write_bytes(data)
        report = verify(Path(aside) / LOG)
    if report.problem is not None:
        where = Evidence(path=f"{directory}/{report.problem.file.name}", line=report.problem.line or None)
        return failed(f"the audit chain is broken: {report.problem.detail}", where)
    return passed(f"{report.lines} audit lines in {len(chain)} files, unbroken", at)


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
