"""A launchd job as its property list describes it, also in a unit's terms, so that one rule serves both managers."""

from __future__ import annotations

import plistlib
from typing import Any

import msgspec

from agent.services.finding import Evidence
from agent.services.look import Look
from agent.services.probe import FileText, Unreadable
from agent.services.unit_file import Setting, UnitText
from opsexec.handlers.launchctl import parse_print
from opsexec.handlers.launchd import ODD_PLIST

ROOT = "lint.plist-syntax"
DAEMONS, AGENTS = "/Library/LaunchDaemons", "/Library/LaunchAgents"
MOST = 400
"""Property lists that are read in the search for a label; a mac has some dozens."""
OUR_PREFIX = "org.ops-agent."
"""What our own jobs' labels begin with."""


def own_label(name: str) -> str:
    """Return the label of a job of ours: a reverse-DNS name, which is also the file's."""
    return OUR_PREFIX + name.replace("_", "-").replace("@", "-")


class Job(msgspec.Struct, frozen=True):
    """A property list that is one: its file, and the keys of its outermost dict."""

    file: FileText
    keys: dict[str, Any]

    @property
    def label(self) -> str:
        """Its label, by which launchd knows it; empty when it has none."""
        found = self.keys.get("Label")
        return found if isinstance(found, str) else ""

    def words(self) -> list[str]:
        """The program and its words."""
        given = self.keys.get("ProgramArguments")
        words = [each for each in given if isinstance(each, str)] if isinstance(given, list) else []
        program = self.keys.get("Program")
        return [program, *words[1:]] if isinstance(program, str) else words

    def as_unit(self) -> UnitText:
        """What a unit of systemd's would say instead; line 0, for a property list has none worth naming."""
        rows = [("ExecStart", " ".join(_quoted(word) for word in self.words()))]
        for key, theirs in (("StandardOutPath", "StandardOutput"), ("StandardErrorPath", "StandardError")):
            path = self.keys.get(key)
            if isinstance(path, str):
                rows.append((theirs, f"append:{path}"))
        env = self.keys.get("EnvironmentVariables")
        for name, value in env.items() if isinstance(env, dict) else ():
            if isinstance(value, str):  # others could stand for a text without end
                rows.append(("Environment", f"{name}=" + _quoted(value)))
        account = self.keys.get("UserName")
        if isinstance(account, str):
            rows.append(("User", account))
        path = self.file.asked
        return UnitText(path, tuple(Setting("Service", key, value, path, 0) for key, value in rows if value))


def _quoted(word: str) -> str:
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def parse_job(file: FileText) -> Job:
    """Return the job of a property list; raises Unreadable for what is none."""
    at = Evidence(path=file.asked)
    try:
        keys = plistlib.loads(file.data)
    except ODD_PLIST as error:
        raise Unreadable(f"{file.asked} is no property list", at, root=ROOT) from error
    if not isinstance(keys, dict) or not all(isinstance(each, str) for each in keys):
        raise Unreadable(f"{file.asked} holds no dict", at, root=ROOT)
    return Job(file, keys)


async def directories(look: Look) -> tuple[str, ...]:
    """Return where the service's property list may stand, the likeliest first."""
    own = f"{await look.home()}/Library/LaunchAgents"
    return (own, AGENTS, DAEMONS) if look.user else (DAEMONS, AGENTS, own)


async def plist_path(look: Look) -> str:
    """Return where the job's property list stands; raises Unreadable where there is none.

    It goes by its file's name, else by the label that a file of another name has, else by what launchd has loaded.
    """
    return await look.probe.memo(("plist", look.service.name, look.user), lambda: _plist_path(look))


async def _plist_path(look: Look) -> str:
    name = look.service.name
    for directory in await directories(look):
        for stem in dict.fromkeys((name, own_label(name))):
            if (await look.probe.stat(f"{directory}/{stem}.plist")).exists:
                return f"{directory}/{stem}.plist"
    found = await _labelled(look) or await _loaded(look)
    if found is None:
        raise Unreadable(f"there is no property list of {name} on this host", root="svc.state")
    return found


async def _labelled(look: Look) -> str | None:
    """Return the property list of the label, whatever its file is called; what can't be read is passed over."""
    for directory in await directories(look):
        for entry in (await look.probe.survey(directory, max_entries=MOST)).entries:
            if not entry.path.endswith(".plist"):
                continue
            try:
                if parse_job(await look.probe.read(entry.path)).label == look.service.name:
                    return entry.path
            except Unreadable:
                continue
    return None


async def _loaded(look: Look) -> str | None:
    """Return the file that launchd has loaded the job from: it may stand anywhere."""
    for domain in (f"gui/{await look.uid()}", f"user/{await look.uid()}") if look.user else ("system",):
        said = await look.probe.ask("launchd.job", f"{domain}/{look.service.name}")
        path = ((parse_print(said.out) if said.rc == 0 else None) or {}).get("path", "")
        if path.startswith("/") and (await look.probe.stat(path)).exists:
            return path
    return None


async def plist_file(look: Look) -> FileText:
    """Return the property list as it stands, whatever it holds; raises Unreadable."""
    path = await plist_path(look)
    try:
        return await look.probe.read(path)
    except Unreadable as error:
        raise Unreadable(error.reason, *error.evidence, hint=error.hint, root=ROOT) from error


async def find_job(look: Look) -> Job:
    """Return the service's job; raises Unreadable where there is none, or its property list can't be read."""
    return parse_job(await plist_file(look))
