"""lint.* for launchd: the property list of a job. What was never seen on a mac is marked untested in docs/doctor.md."""

from __future__ import annotations

from agent.services.check import check, on_mac
from agent.services.checks import lint_exec, lint_files, lint_unit
from agent.services.finding import Evidence, Ruling, passed, skipped, warned
from agent.services.launchd_job import find_job, plist_file
from agent.services.look import Look
from agent.services.plist_lint import RESTART, SESSION, STOP, SYNTAX, flaws

MAC = ("Darwin",)


async def judged(look: Look, id: str) -> list[Ruling]:
    """Return what the lint says under one check's id; raises Unreadable where the property list is none at all."""
    file = await plist_file(look)
    if id != SYNTAX:
        await find_job(look)
    return [each.ruling for each in flaws(file.data, file.asked) if each.id == id]


@check(
    SYNTAX, "service", reads="the job's property list, as bytes (duplicate keys) and as values (types)",
    fails_when="launchd would refuse it, or understand something else", severity="high", platforms=MAC, blocks=True,
)  # fmt: skip
async def plist_syntax(look: Look) -> list[Ruling] | Ruling:
    """Rule on the property list's form and values."""
    return await judged(look, SYNTAX) or passed("launchd understands every key")


@check(
    SESSION, "service", reads="LimitLoadToSessionType, UserName and where the property list stands",
    fails_when="a daemon asks for a login session, or an agent for the system's", platforms=MAC, after=(SYNTAX,),
)  # fmt: skip
async def session_type(look: Look) -> list[Ruling] | Ruling:
    """Compare the session type with the domain."""
    found = await judged(look, SESSION)
    if not found and "LimitLoadToSessionType" not in (await find_job(look)).keys:
        return skipped("it names no session type")
    return found or passed("its session type fits its place")


@on_mac(RESTART, reads="KeepAlive, ThrottleInterval, StartInterval, RunAtLoad")
async def restarts(look: Look) -> list[Ruling] | Ruling:
    """Rule on how launchd starts it again."""
    return await judged(look, RESTART) or passed("it is not started again without end")


@on_mac(STOP, reads="AbandonProcessGroup, ExitTimeOut")
async def stop(look: Look) -> list[Ruling] | Ruling:
    """Rule on how it is stopped."""
    found = await judged(look, STOP)
    job = await find_job(look)
    takes = job.keys.get("ExitTimeOut")
    if look.declared is not None and isinstance(takes, int) and not isinstance(takes, bool):
        wanted = look.declared.lifecycle.shutdown_timeout_seconds
        if takes > wanted:
            found.append(warned(f"a stop may take {takes} s, declared are {wanted} s", Evidence(path=job.file.asked)))
    return found or passed("a stop ends everything it started")


_WORDS = "Program, ProgramArguments"
for _id, _rule, _reads in (
    ("lint.raw-runtime-run", lint_exec.raw_runtime_run, f"{_WORDS} and the scripts they start"),
    ("lint.remote-image", lint_exec.remote_image, f"{_WORDS}, scripts and the declaration"),
    ("lint.pull-policy", lint_exec.pull_policy, f"{_WORDS} and scripts"),
    ("lint.log-tmp", lint_exec.log_tmp, "StandardOutPath, StandardErrorPath, redirections of scripts; [logs]"),
    ("lint.shell-c", lint_exec.shell_c, _WORDS),
    ("lint.opaque-nix", lint_exec.opaque_nix, _WORDS),
    ("lint.secrets-in-env", lint_unit.secrets_in_env, "EnvironmentVariables; values are never shown"),
    ("lint.wrapper", lint_files.wrapper, f"{_WORDS} and scripts: what macOS lacks, too"),
):
    on_mac(_id, reads=_reads)(_rule)
