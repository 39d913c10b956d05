"""The demo itself: bring up stage and bottle, let the agent try, and compare that with what was seen outside."""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bottle.attended import Attended, attend
from bottle.credentials import gather
from bottle.demo.stage import ADDRESS, Api, Neighbour, api, neighbour
from bottle.demo.upstream import Upstream, upstream
from bottle.manifest.store import load_object
from bottle.plan import Intent, make_plan
from bottle.preflight import preflight, shown
from bottle.providers.base import HostFacts
from bottle.runtime import find_runtime, with_git
from bottle.state import Metadata, State, new_identity, this_process
from opsexec.audit import verify
from opsexec.executor import Stream

HOST = "api.demo.test"
TOKEN = "demo-token-4f2a9c7be1d80356"
HELD = "demo-held-9b1e77aa20c4d3f8"
REFUSED = ("OSError: [Errno 30]", "PermissionError: [Errno 13]")
"""How the kernel says no: a read-only mount to who root started, file modes to anybody else."""

MANIFEST: dict[str, Any] = {
    "bottles": {
        "demo": {
            "env": {"HELD": "${DEMO_HELD}"},
            "egress": {
                "routes": [
                    {
                        "host": HOST,
                        "path_allowlist": ["/v1"],
                        "auth": {"scheme": "Bearer", "token_ref": "DEMO_TOKEN"},
                        "pipelock": {"ssrf_ip_allowlist": [f"{ADDRESS}/32"]},
                    }
                ]
            },
        }
    },
    "agents": {"demo": {"bottle": "demo", "prompt": "Try to get out.\n"}},
}


@dataclass
class Told:
    """A sink that keeps what the agent told, and shows it as it comes."""

    lines: list[dict[str, str]] = field(default_factory=list)
    raw: bytes = b""
    _rest: bytes = b""

    async def write(self, stream: Stream, data: bytes) -> None:
        """Take a block."""
        self.raw += data
        *whole, self._rest = (self._rest + data).split(b"\n")
        for line in whole:
            if line.startswith(b"{"):
                found = json.loads(line)
                self.lines.append(found)
                print(f"  agent: {found['tried']:<42} {shown(found['came'])[:110]}", flush=True)

    def came(self, tried: str) -> str:
        """Return what came of one attempt."""
        return next((line["came"] for line in self.lines if line["tried"] == tried), "")


def demo(arguments: argparse.Namespace) -> int:
    """As `bottle demo`."""
    return run()


def run() -> int:
    """Run the demo; returns 0 when every claim was observed, 1 when one was not. Raises HostUnready."""
    return asyncio.run(_demo())


async def _demo() -> int:
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="bottle-demo-") as name, api(HOST, Path(name)) as web, neighbour() as near:
        root = Path(name) / "root"
        root.mkdir(mode=0o700)
        told = Told()
        async with upstream(Path(name) / "git") as git:
            before = await git.refs()
            identity, code = await _bottle(root, Outside(web, near, git), told)
            after = await git.refs()
        directory = State(root).directory(identity)
        claims = observe(told, web, near, directory, code) + observe_git(told, git, before, after, directory)
    print(f"\n{'observed':<9} claim\n{'-' * 8}  {'-' * 70}")
    for text, seen in claims:
        print(f"{'yes' if seen else 'NO':<9} {text}")
    good = sum(seen for _, seen in claims)
    print(f"\n{good} of {len(claims)} claims were observed, in {time.monotonic() - begun:.1f} s")
    return 0 if good == len(claims) else 1


@dataclass(frozen=True)
class Outside:
    """What stands outside the bottle."""

    web: Api
    listener: Neighbour
    git: Upstream


async def _bottle(root: Path, outside: Outside, told: Told) -> tuple[str, int]:
    """Start the demo's bottle and wait for its agent; returns identity and exit status."""
    from bottle.backends.base import Place

    identity = new_identity("demo")
    script = Path(__file__).with_name("agent.py").read_text("utf-8")
    git = outside.git
    arguments = ("/usr/bin/python3", "-c", script, str(outside.listener.port), git.url)
    repository = {"url": git.url, "identity": str(git.identity), "host_key": git.host_key}
    gate = {"user": {"name": "Demo", "email": "demo@demo.test"}, "repos": {"site": repository}}
    manifest = {**MANIFEST, "bottles": {"demo": {**MANIFEST["bottles"]["demo"], "git-gate": gate}}}
    plan = make_plan(load_object(manifest).load("demo"), Intent(identity, "bwrap", None, arguments))
    for line in preflight(plan):
        print(f"  {line[:116]}")
    state = State(root)
    metadata = Metadata(identity, "demo", str(root), False, time.time(), "bwrap", launcher=this_process())
    directory = state.make(metadata)
    place = Place(str(directory), with_git(find_runtime()), {HOST: (ADDRESS, outside.web.port)}, outside.web.ca)
    secrets = gather(plan, HostFacts(), str, {"DEMO_TOKEN": TOKEN, "DEMO_HELD": HELD})
    with state.held(identity):
        whole = Attended(plan, place, secrets, state, metadata, told, _say, _show)
        return identity, await attend(whole)


def observe(told: Told, upstream: Api, listener: Neighbour, directory: Path, code: int) -> list[tuple[str, bool]]:
    """Return each claim, and whether what was seen outside the bottle bears it out."""
    lines = (directory / "audit.jsonl").read_text("utf-8").splitlines()
    egress = [record for record in map(json.loads, lines) if record["listener"] == "egress"]
    denied = {(each["step"].get("host"), each["step"].get("path")) for each in egress if each["decision"] == "deny"}
    files = [path.read_bytes() for path in directory.rglob("*") if path.is_file()]
    whole = [("GET", "/v1/models", f"Bearer {TOKEN}")] * 2
    return [
        ("the agent ran to its end", code == 0 and len(told.lines) == 16),
        ("its requests arrived with the token that egress injected", upstream.arrived[:2] == whole),
        ("the agent's own Authorization was replaced, and nothing else arrived", upstream.arrived == whole),
        ("no credential was in its environment", told.came("look for a credential in the environment") == "{}"),
        ("the API's echo of the token came back masked", "Bearer ****" in told.came("an allowed request")),
        ("the token is in nothing the agent said", TOKEN.encode() not in told.raw),
        ("neither the token nor a private key is in any file of the bottle", not _holds(files, TOKEN, "PRIVATE KEY")),
        ("a host without a route was refused, with the reason", ("evil.demo.test", "") in denied),
        ("so was a path outside the allow list", (HOST, "/v1/../admin") in denied),
        ("so was a body with a value of the bottle", "403" in told.came("send a value it holds")),
        ("raw TCP through the gate was refused", "403" in told.came("raw TCP through the gate")),
        ("nobody came to the listener on the host's loopback", listener.visits == 0),
        ("no address outside could be reached", "OSError" in told.came("an address of the internet")),
        ("no name could be looked up", "gaierror" in told.came("DNS")),
        ("the kernel's settings couldn't be written", told.came("the kernel's settings").startswith(REFUSED)),
        (
            "each decision is a line of a hash chain that verifies",
            len(egress) >= 7 and verify(directory / "audit.jsonl").ok,
        ),
    ]


def observe_git(
    told: Told, git: Upstream, before: dict[str, str], after: dict[str, str], directory: Path
) -> list[tuple[str, bool]]:
    """Return the claims about git, by what the upstream holds before and after."""
    records = [json.loads(line) for line in (directory / "audit.jsonl").read_text("utf-8").splitlines()]
    decided = [
        (each["decision"], each["step"]["action"])
        for each in records
        if each["listener"] == "git-gate" and (each["step"] or {}).get("type") == "git"
    ]
    files = [path.read_bytes() for path in directory.rglob("*") if path.is_file()]
    key = git.identity.read_text().splitlines()[1]
    main = {"refs/heads/main": before["refs/heads/main"]}
    secret = told.came("push a secret commit")
    return [
        (
            "a clone through the git gate is the upstream as it stands",
            told.came("clone through the git gate") == f"0 {before['refs/heads/main']}",
        ),
        (
            "a clean push landed on the upstream, behind a real sshd",
            f"0 {after.get('refs/heads/clean')}" == told.came("the commit"),
        ),
        (
            "nothing else did: neither the secret nor the push to main",
            after == {**main, "refs/heads/clean": after.get("refs/heads/clean")},
        ),
        (
            "the secret's push was refused with the reason, which doesn't hold it",
            "git gate: refused" in secret and "HELD" in secret and HELD not in secret,
        ),
        (
            "each of these is in the audit",
            decided == [("allow", "fetch"), ("allow", "push"), ("deny", "push"), ("deny", "push")],
        ),
        (
            "the upstream's key is in nothing the agent said, and in no file of the bottle",
            key.encode() not in told.raw and not _holds(files, key),
        ),
    ]


def _holds(files: list[bytes], *texts: str) -> bool:
    return any(text.encode() in data for text in texts for data in files)


def _say(line: str) -> None:
    print(f"  bottle: {line}", flush=True)


def _show(event: dict[str, Any]) -> None:
    if event.get("event") == "git":
        where = shown(f"{event.get('action', '')} {event.get('repository', '')}")
        print(f"  git gate: {event.get('decision')} {where}: {shown(str(event.get('reason', '')))[:100]}", flush=True)
        return
    where = shown(f"{event.get('method', '')} {event.get('host', '')}{event.get('path', '')}".strip())
    print(f"  egress: {event.get('decision')} {where}: {shown(str(event.get('reason', '')))}", flush=True)
