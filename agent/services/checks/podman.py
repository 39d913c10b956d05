"""podman.*: the container runtime, from its binary to the socket it is reached by."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote, urlsplit

from agent.services.check import check
from agent.services.finding import Evidence, Fix, Ruling, failed, passed, skipped, unknown, warned
from agent.services.look import Look
from agent.services.probe import Missing, Said, Unreadable

ISOLATING = (4, 4)
"""The first podman whose --authfile alone keeps the ambient docker configuration out, and that reads Quadlet files."""

CHAIN = ("podman.binary", "podman.version", "podman.machine-exists", "podman.machine-running", "podman.connection",
         "podman.socket")  # fmt: skip
"""Each link says all there is to say for those after it; whatever needs podman waits for the last."""


def uses_podman(look: Look) -> bool:
    """Whether podman matters here: always for the host, and for services that are declared to run in it."""
    return not look.has_service or look.declared is None or look.declared.runtime == "podman"


def link_of(look: Look) -> str | None:
    """Return the name of the connection that is declared; None = podman as it is."""
    return look.declared.podman.connection if look.declared else None


async def podman_version(look: Look) -> tuple[int, ...]:
    """Return podman's version; raises Missing or Unreadable."""
    said = await look.probe.ask("podman.version")
    return parse_version(said)


def parse_version(said: Said) -> tuple[int, ...]:
    """Return the client's version from `podman version --format json`; raises Unreadable for anything else."""
    found = said.json()
    text = found.get("Client", {}).get("Version") if isinstance(found, dict) else None
    match = re.match(r"(\d{1,4})\.(\d{1,4})(?:\.(\d{1,4}))?", text) if isinstance(text, str) else None
    if match is None:
        raise Unreadable("podman doesn't say its version", said.evidence)
    return tuple(int(each) for each in match.groups() if each is not None)


@check(
    "podman.binary", "podman", reads="podman in the usual directories", fails_when="there is none", severity="high",
    blocks=True,
)  # fmt: skip
async def binary(look: Look) -> Ruling:
    """Rule on whether podman is there."""
    if not uses_podman(look):
        return skipped("it doesn't run in podman")
    tools = await look.probe.facts("tools")
    path = tools.get("podman") if isinstance(tools, dict) else None
    if path is None and await look.system() == "Darwin":
        for place in ("/opt/homebrew/bin/podman", "/opt/podman/bin/podman"):
            if (await look.probe.stat(place)).exists:
                return warned(f"podman is in {place}, where units don't look", Evidence(path=place))
    if path is None:
        if look.has_service and look.declared is not None:
            fix = Fix(text="install it", argv=("apt-get", "install", "podman"))
            return failed("there is no podman on this host", fix=fix)
        return skipped("there is no podman on this host", "podman.binary")
    return passed(f"podman is {path}", Evidence(path=path))


@check(
    "podman.version", "podman", reads="`podman version --format json`",
    fails_when="it doesn't answer; a version before 4.4 warns: --authfile doesn't isolate it, no Quadlet",
    severity="medium", after=("podman.binary",), blocks=True,
)  # fmt: skip
async def version(look: Look) -> Ruling:
    """Rule on podman's version."""
    if not uses_podman(look):
        return skipped("it doesn't run in podman")
    try:
        said = await look.probe.ask("podman.version")
    except Missing:
        return failed("there is no podman on this host")
    if said.rc != 0:
        return failed("podman doesn't work here: " + last_line(said), said.evidence)
    found = parse_version(said)
    text = ".".join(map(str, found))
    if found < (3,):
        return failed(f"podman {text} is too old", said.evidence)
    if found < ISOLATING:
        return warned(
            f"podman {text}: --authfile alone doesn't keep ambient credentials out, and no Quadlet", said.evidence
        )
    return passed(f"podman {text}", said.evidence)


def last_line(said: Said) -> str:
    """Return the last line of what a program complained about."""
    return (said.err or said.out).strip().rpartition("\n")[2][:200]


async def machines(look: Look) -> tuple[list[dict[str, Any]], Said] | None:
    """Return podman's machines; None where it runs natively and none is asked for."""
    required = look.declared is not None and look.declared.podman.require_machine
    if await look.system() != "Darwin" and not required:
        return None
    said = await look.probe.ask("podman.machines")
    found = said.json()
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise Unreadable("podman's list of machines makes no sense", said.evidence)
    return found, said


@check(
    "podman.machine-exists", "podman", reads="`podman machine list --format json`",
    fails_when="a machine is needed, and there is none", severity="high", after=CHAIN[:2], blocks=True,
)  # fmt: skip
async def machine_exists(look: Look) -> Ruling:
    """Rule on whether there is a machine."""
    if not uses_podman(look):
        return skipped("it doesn't run in podman")
    found = await machines(look)
    if found is None:
        return skipped("podman runs natively")
    if not found[0]:
        return failed(
            "there is no podman machine",
            found[1].evidence,
            fix=Fix(text="make one", argv=("podman", "machine", "init")),
        )
    return passed(f"{len(found[0])} podman machines", found[1].evidence)


def the_machine(found: list[dict[str, Any]], connection: str | None) -> dict[str, Any]:
    """Return the machine a connection is of, else the default one."""
    names = (connection, (connection or "").removesuffix("-root"))
    chosen = [each for each in found if str(each.get("Name", "")).rstrip("*") in names]
    return (chosen or [each for each in found if each.get("Default")] or found)[0]


@check(
    "podman.machine-running", "podman", reads="`podman machine list --format json`",
    fails_when="the machine that is needed is stopped", severity="high", after=CHAIN[:3], blocks=True,
)  # fmt: skip
async def machine_running(look: Look) -> Ruling:
    """Rule on whether the machine runs."""
    if not uses_podman(look):
        return skipped("it doesn't run in podman")
    found = await machines(look)
    if found is None:
        return skipped("podman runs natively")
    machine = the_machine(found[0], link_of(look))
    name = str(machine.get("Name", "")).rstrip("*")
    if machine.get("Running") is True:
        return passed(f"the machine {name} runs", found[1].evidence)
    if machine.get("Running") is not False:
        return unknown(f"podman doesn't say whether {name} runs", found[1].evidence)
    fix = Fix(text="start it", argv=("podman", "machine", "start", name), safe=True)
    return failed(f"the podman machine {name} is stopped", found[1].evidence, fix=fix)


async def connection(look: Look) -> dict[str, Any] | None:
    """Return the connection podman uses; None when it runs natively, empty when there is none. Raises Unreadable."""
    name = link_of(look)
    if name is None and await look.system() != "Darwin":
        return None
    said = await look.probe.ask("podman.connections")
    found = said.json()
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise Unreadable("podman's list of connections makes no sense", said.evidence)
    for each in found:
        if each.get("Name") == name or (name is None and each.get("Default") is True):
            return dict(each)
    return {}


@check(
    "podman.connection", "podman", reads="`podman system connection list --format json`, the identity file it names",
    fails_when="the connection isn't there, or its identity isn't", severity="high", after=CHAIN[:4], blocks=True,
)  # fmt: skip
async def has_connection(look: Look) -> Ruling:
    """Rule on the connection podman is reached by."""
    if not uses_podman(look):
        return skipped("it doesn't run in podman")
    found = await connection(look)
    if found is None:
        return skipped("podman runs natively")
    if not found:
        return failed(f"podman has no connection {link_of(look) or 'that is the default'}")
    identity = found.get("Identity")
    if isinstance(identity, str) and identity and not (await look.probe.stat(identity)).exists:
        return failed(f"the key of the connection {found.get('Name')} is gone", Evidence(path=identity))
    return passed(f"the connection {found.get('Name')} goes to {shown_uri(str(found.get('URI')))}")


def shown_uri(uri: str) -> str:
    """Return a URI without a password."""
    return re.sub(r"(//[^/@:]*):[^/@]*@", r"\1:***@", uri)[:200]


WORDS = {
    "connection refused": "nothing listens there", "no such file": "its socket is missing",
    "no such host": "its host has no address", "permission denied": "this user may not", "timed out": "no answer",
    "timeout": "no answer", "i/o timeout": "no answer", "unable to authenticate": "its key is refused",
    "no route to host": "its host is unreachable", "host key": "its host key has changed",
}  # fmt: skip


def classify(text: str) -> str:
    """Return what a podman that reaches no service complains about, in a few words."""
    low = text.lower()
    return next((meaning for words, meaning in WORDS.items() if words in low), "it doesn't answer")


PULSES = {"missing": "its socket is missing (ENOENT)", "refused": "nothing listens on its socket (ECONNREFUSED)",
          "denied": "this user may not (EACCES)", "silent": "it listens and says nothing",
          "odd": "something else listens there"}  # fmt: skip


@check(
    "podman.socket", "podman", reads="connect(2) and `GET /_ping` on a unix socket; `podman --connection NAME version`",
    fails_when="the service doesn't answer", severity="high", after=CHAIN[:5], blocks=True,
)  # fmt: skip
async def socket(look: Look) -> Ruling:
    """Rule on whether the service behind the connection answers."""
    if not uses_podman(look):
        return skipped("it doesn't run in podman")
    found = await connection(look)
    if found is None:
        return await _native(look)
    uri = urlsplit(str(found.get("URI")))
    if uri.scheme == "unix":
        path = unquote(uri.path)
        pulse = await look.probe.ping(path)
        evidence = Evidence(path=path, excerpt=pulse.detail)
        if pulse.state == "ok":
            return passed("the podman service answers", evidence)
        return failed(f"the podman service doesn't answer: {PULSES[pulse.state]}", evidence)
    said = await look.probe.ask("podman.version", connection=str(found.get("Name")))
    if said.rc == 0 and isinstance(said.json(), dict) and said.json().get("Server"):
        return passed("the podman service answers", said.evidence)
    return failed(f"the podman service doesn't answer: {classify(said.err)}", said.evidence)


async def _native(look: Look) -> Ruling:
    """Rule on the socket other programs may use; podman itself needs none."""
    runtime = "/run" if await look.uid() == 0 else await look.runtime_dir()
    path = f"{runtime or '/run'}/podman/podman.sock"
    pulse = await look.probe.ping(path)
    evidence = Evidence(path=path, excerpt=pulse.detail)
    if pulse.state == "missing":
        return skipped("podman runs natively, without a service")
    if pulse.state == "ok":
        return passed("podman runs natively, and its service answers", evidence)
    fix = Fix(text="start it again", argv=("systemctl", "restart", "podman.socket"), safe=True)
    return warned(f"podman runs natively; its service doesn't answer: {PULSES[pulse.state]}", evidence, fix=fix)
