"""lint.*: what a unit's settings promise."""

from __future__ import annotations

import json
import re

from agent.services.check import check
from agent.services.checks.lint_exec import starts
from agent.services.command_line import ContainerRun
from agent.services.definition import Definition, as_it_stands, definition, where
from agent.services.finding import Evidence, Fix, Ruling, failed, passed, skipped, unknown, warned
from agent.services.look import Look
from agent.services.probe import Missing, Said, Unreadable
from agent.services.restart_limits import Limits, why_unbounded
from agent.services.secret_shapes import secret_names
from agent.services.timespan import seconds
from agent.services.unit_file import Unit
from agent.services.unit_state import limits_of, loaded, unit_state

LINUX = ("Linux",)
COMPLAINTS = (
    "Unknown key",
    "Failed to parse",
    "ignoring",
    "Unknown section",
    "Assignment outside",
    "Unbalanced",
    "Invalid",
)
"""What systemd-analyze says on stderr of a line it doesn't take, while it ends with 0 (systemd 252)."""


def complaints(stderr: str, path: str) -> list[Evidence]:
    """Return what `systemd-analyze verify` says against this file, with its lines."""
    found = []
    for line in stderr.splitlines():
        match = re.match(r"(\S+?):(\d+): (.*)", line)
        name = path.rpartition("/")[2]
        if match and match[1].rpartition("/")[2] == name and any(each in match[3] for each in COMPLAINTS):
            found.append(Evidence(path=path, line=int(match[2]), excerpt=match[3][:300]))
        elif (
            not match
            and line.startswith(f"{name}: ")
            and not line.endswith(("not found.", "No such file or directory"))
        ):
            found.append(Evidence(path=path, excerpt=line.removeprefix(f"{name}: ")[:300]))
    return found


@check(
    "lint.unit-syntax", "service", reads="`systemd-analyze verify FILE`, by what it says, for it ends with 0",
    fails_when="systemd doesn't understand a line, and goes on without it", severity="high", platforms=LINUX,
    blocks=True,
)  # fmt: skip
async def unit_syntax(look: Look) -> Ruling:
    """Rule on the definition's form."""
    found = await as_it_stands(look)
    for text in found.unit.files:
        if text.binary:
            return failed("the definition isn't text", Evidence(path=text.path))
        if text.odd:
            line, said = text.odd[0]
            return failed(
                f"line {line} is neither a section nor a setting", Evidence(path=text.path, line=line, excerpt=said)
            )
    if not found.unit.files[0].settings:
        return failed("the definition is empty", Evidence(path=found.main.asked))
    try:
        verdict = await look.probe.ask("systemd.verify", found.main.asked)
    except Missing:
        return unknown("there is no systemd-analyze here")
    wrong = complaints(verdict.err, found.main.path) or complaints(verdict.err, found.main.asked)
    if wrong:
        return failed(f"systemd doesn't understand {len(wrong)} of its lines: {wrong[0].excerpt}", *wrong[:20])
    if verdict.rc != 0:
        return failed("systemd-analyze refuses it", verdict.evidence)
    return passed("systemd understands every line", verdict.evidence)


@check(
    "lint.restart-unbounded", "service", reads="Restart=, RestartSec=, StartLimitIntervalSec=, StartLimitBurst=",
    fails_when="a service that always fails is started again without end, or Restart=always", severity="high",
    platforms=LINUX, blocks=True,
)  # fmt: skip
async def restart_unbounded(look: Look) -> Ruling:
    """Rule on the restart limits that are in force, or else on those that are written."""
    found = await definition(look)
    limits = found.limits()
    try:
        state = await unit_state(look)
        limits = limits_of(state) if loaded(state) else limits
    except Unreadable as error:
        if error.root is None:
            raise
    return judge_limits(limits, found)


def judge_limits(limits: Limits, found: Definition) -> Ruling:
    """Rule on restart limits; a limit that stands where systemd doesn't read it is named."""
    evidence = [where(each) for each in [found.unit.last("Service", "Restart")] if each]
    why = why_unbounded(limits)
    stray = [
        each for key in ("StartLimitIntervalSec", "StartLimitBurst") for each in found.unit.all("Service", key)
        if key == "StartLimitIntervalSec"
    ]  # fmt: skip
    if stray:
        evidence += [where(each) for each in stray]
    if why:
        text = f"it restarts without end: {why}"
        if stray:
            text += "; StartLimitIntervalSec= under [Service] is ignored, it belongs under [Unit]"
        return failed(text, *evidence, fix=Fix(text="set StartLimitIntervalSec=1h and StartLimitBurst=3 under [Unit]"))
    if limits.restart == "always":
        return failed(
            "Restart=always starts it again also when it ended well", *evidence, fix=Fix(text="use Restart=on-failure")
        )
    if limits.restart in ("no", ""):
        return passed("it is not restarted")
    return passed(f"at most {limits.burst} starts in {limits.interval_s:g} s")


@check(
    "lint.secrets-in-env", "service", reads="Environment= names and values; values are never shown",
    fails_when="a secret stands in the definition, where every user of the host can read it", severity="high",
    platforms=LINUX,
)  # fmt: skip
async def secrets_in_env(look: Look) -> Ruling:
    """Rule on the environment in the definition."""
    found = await definition(look)
    wrong = []
    for setting in found.unit.all("Service", "Environment"):
        for name in secret_names(setting.value):
            wrong.append(Evidence(path=setting.path, line=setting.line, excerpt=f"{name}=***"))
    if wrong:
        fix = Fix(text="use LoadCredential=, or EnvironmentFile= with mode 0600")
        return failed(f"{wrong[0].excerpt} stands in the definition", *wrong, fix=fix)
    return passed("no secret stands in the definition")


TYPES = ("simple", "exec", "forking", "oneshot", "dbus", "notify", "notify-reload", "idle")


def detached(run: ContainerRun) -> bool:
    """True when the words before the image send the container to the background."""
    own = run.words[: run.words.index(run.image)] if run.image in run.words else run.words
    return bool({"-d", "--detach", "--detach=true", "-dit", "-dt", "-td", "-itd"} & set(own))


def type_mismatches(unit: Unit, runs: list[ContainerRun]) -> list[str]:
    """Return where Type= says something else than the unit does: the manager then watches the wrong process."""
    kind = unit.value("Service", "Type") or ("dbus" if unit.last("Service", "BusName") else "simple")
    found = []
    if kind not in TYPES:
        found.append(f"Type={kind[:40]} is none")
    if kind == "forking" and not unit.last("Service", "PIDFile"):
        found.append("Type=forking without PIDFile=: the manager guesses which process is the service")
    if kind == "dbus" and not unit.last("Service", "BusName"):
        found.append("Type=dbus without BusName=")
    if kind == "oneshot" and unit.value("Service", "Restart") in ("always", "on-success"):
        found.append("Type=oneshot starts again after every success with this Restart=")
    if kind not in ("forking", "oneshot", "notify") and any(detached(each) for each in runs):
        found.append(f"Type={kind} with a detached container: the manager takes its start for the service's end")
    return found


@check(
    "lint.killmode", "service", reads="KillMode=, Type=, TimeoutStopSec=",
    fails_when="a stop leaves processes behind or takes longer than declared, or Type= isn't what it does",
    platforms=LINUX,
)  # fmt: skip
async def killmode(look: Look) -> Ruling:
    """Rule on how it is stopped."""
    unit = (await definition(look)).unit
    mode = unit.last("Service", "KillMode")
    if mode and mode.value in ("none", "process"):
        return warned(f"KillMode={mode.value} leaves processes behind when it is stopped", where(mode))
    stop = unit.last("Service", "TimeoutStopSec") or unit.last("Service", "TimeoutSec")
    if stop and seconds(stop.value) is None:
        return warned("TimeoutStopSec= is no time span", where(stop))
    for each in type_mismatches(unit, [start.run for start in await starts(look)]):
        return warned(each, *(where(line) for line in [unit.last("Service", "Type")] if line))
    if stop and look.declared is not None:
        wanted = look.declared.lifecycle.shutdown_timeout_seconds
        if (seconds(stop.value) or 0) > wanted:
            return warned(f"a stop may take {stop.value}, declared are {wanted} s", where(stop))
    return passed("a stop ends everything it started")


@check(
    "lint.exposure", "service", reads="`systemd-analyze security --offline=true --threshold=N`",
    fails_when="its exposure is over the declared budget", severity="low", platforms=LINUX,
)  # fmt: skip
async def exposure(look: Look) -> Ruling:
    """Compare its sandbox with the budget."""
    budget = look.declared.exposure_budget if look.declared else 9.9
    found = await definition(look)
    said = await look.probe.ask("systemd.security", found.main.asked, number=round(budget * 10))
    return judge_exposure(said, budget)


def judge_exposure(said: Said, budget: float) -> Ruling:
    """Rule on `systemd-analyze security`, whose status says whether the threshold is kept."""
    try:
        rows = json.loads(said.out)
        open_rows = [str(row["name"]) for row in rows if row.get("exposure") not in (None, "", "0.0", "0")]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise Unreadable("systemd-analyze security gave no table", said.evidence) from error
    evidence = Evidence(cmd=said.cmd, rc=said.rc, excerpt="open: " + ", ".join(open_rows)[:500])
    if said.rc == 0:
        return passed(f"its exposure is within {budget:g}", evidence)
    if said.rc == 1:
        return warned(f"its exposure is over {budget:g}", evidence)
    raise Unreadable(f"systemd-analyze security ended with {said.rc}", said.evidence)


@check(
    "lint.uninstall", "service", reads="the receipt of the install",
    fails_when="nothing says how to take it away or to quarantine it", severity="low",
)  # fmt: skip
async def uninstall(look: Look) -> Ruling:
    """Rule on whether there is a way back."""
    if look.service.problem:
        return unknown(look.service.problem)
    if look.declared is None:
        return skipped("nothing is declared of it")
    receipt = look.service.receipt
    if receipt is None:
        return skipped("it was not installed by ops-agent")
    if not receipt.uninstall or not receipt.quarantine:
        return warned("its receipt has no plan to uninstall and quarantine it")
    return passed("its receipt says how to take it away")
