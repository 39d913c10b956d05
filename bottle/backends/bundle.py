"""What runs in a bundle, whatever it is isolated by: its daemons, what each is told, and the files they stand on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bottle import dns, second_hop, supervise
from bottle.authority import Authority
from bottle.backends.base import UID, Phase, Place
from bottle.credentials import Credentials
from bottle.errors import HostUnready
from bottle.git_gate import DAEMON, configuration
from bottle.plan import EGRESS_PORT, GIT_NATIVE_PORT, GIT_PORT, SUPERVISE_PORT, BottlePlan
from opsexec.secret import Secret, reveal
from opsexec.steps import ReadFile, WriteFile

CODE = "/run/bundle/code"
CONFIG = "/run/bundle/config"
DOORS = "/run/bundle/doors"
HOST_FILES = ("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf")
TRUST = "/etc/ssl/certs/ca-certificates.crt"


@dataclass(frozen=True)
class Bundle:
    """`argv`, `env`: the supervisor. `told`: the first line of its stdin. `trees`: what is bound, inside -> host."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    told: Secret
    trees: Mapping[str, str]


def doors(plan: BottlePlan) -> dict[int, str]:
    """Return what the agent may reach: a port -> the name of the bundle's socket behind it."""
    found = {EGRESS_PORT: "egress.sock"} if plan.egress.routes or plan.supervise else {}
    if plan.repositories:
        found[GIT_PORT] = "git.sock"
        if plan.backend == "docker":
            found[GIT_NATIVE_PORT] = "git-native.sock"
    if plan.supervise:
        found[SUPERVISE_PORT] = "supervise.sock"
    return found


def daemons(plan: BottlePlan, place: Place, address: str | None) -> set[str]:
    """Return the names of the daemons that a plan's bundle runs; `address`: where the agent finds it on a network."""
    found = {"egress", DAEMON} if plan.repositories else {"egress"}
    if plan.supervise:
        found.add(supervise.DAEMON)
    if place.runtime.pipelock:
        found.add(second_hop.DAEMON)
    return found | {dns.DAEMON, "doors"} if address else found


def bundle(
    plan: BottlePlan, place: Place, secrets: Credentials, authority: Authority, address: str | None = None
) -> Bundle:
    """Return the bundle of a plan. With an `address` its doors are ports there, and a resolver answers beside them."""
    python = place.runtime.python
    env = {
        "PYTHONPATH": CODE,
        "PYTHONDONTWRITEBYTECODE": "1",
        "PATH": "/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "BOTTLE_IDENTITY": plan.identity,
    }
    code = {f"{CODE}/bottle": f"{place.runtime.code}/", f"{CODE}/opsexec": f"{place.runtime.opsexec}/"}
    trees = {tree: f"{tree}/" for tree in place.runtime.trees} | code
    running: dict[str, dict[str, Any]] = {}

    def run(name: str, by: str, module: str, told: Mapping[str, Any]) -> None:
        argv = [by, "-m", f"bottle.sidecars.{module}"]
        running[name] = {"argv": argv, "env": {**env, "HOME": "/tmp"}, "stdin": json.dumps(told)}

    run("egress", python, "egress.serve", _egress(plan, place, secrets, authority))
    if place.runtime.pipelock:
        told = second_hop.configuration(f"{CONFIG}/{second_hop.FILE}", f"{CONFIG}/trust.pem")
        run(second_hop.DAEMON, python, "pipelock.serve", told)
        trees[second_hop.PROGRAM] = place.runtime.pipelock
    git = place.runtime.git
    if plan.repositories:
        if git is None:
            raise HostUnready("a bottle with repositories needs the git gate's programs", hint="run scripts/setup.sh")
        sockets = {port: f"{DOORS}/{name}" for port, name in doors(plan).items()}
        told = configuration(plan, secrets, sockets, "/tmp/git", git.gitleaks)
        run(DAEMON, git.python, "git_gate.serve", told)
        trees |= {tree: f"{tree}/" for tree in git.trees}
    if plan.supervise:
        run(supervise.DAEMON, python, "supervise.serve", supervise.configuration(plan, f"{DOORS}/supervise.sock"))
        running[supervise.DAEMON]["line"] = True
    if address is not None:
        behind = {str(port): f"{DOORS}/{name}" for port, name in doors(plan).items()}
        run("doors", python, "doors", {"address": address, "doors": behind})
        run(dns.DAEMON, python, "dns.serve", dns.configuration(plan, secrets, [address], address))
    told_all = Secret(json.dumps({"daemons": running}) + "\n")
    # Without what site looks for: the supervisor, which each daemon waits for, is the standard library's alone.
    return Bundle((python, "-S", "-m", "bottle.sidecars.init"), env, told_all, trees)


def _egress(plan: BottlePlan, place: Place, secrets: Credentials, authority: Authority) -> dict[str, Any]:
    return {
        "bottle": plan.identity,
        "socket": f"{DOORS}/egress.sock",
        "table": f"{CONFIG}/routes.json",
        "trust": second_hop.TRUST if place.runtime.pipelock else f"{CONFIG}/trust.pem",
        "hop": second_hop.ADDRESS if place.runtime.pipelock else None,
        "work_dir": "/tmp/egress",
        "routes": plan.egress.table(),
        "resolve": {host: [address, port] for host, (address, port) in place.resolve.items()},
        "ca": authority.key_and_certificate.reveal(),
        "tokens": {slot: value.reveal() for slot, value in secrets.tokens.items()},
        "known": [[name, reveal(value)] for name, value in secrets.env.items()],
    }


def host_reads() -> tuple[ReadFile, ...]:
    """Return what is read of the host for the bundle: how it looks names up, and whom it trusts."""
    return tuple(ReadFile(path, max_bytes=4 << 20) for path in (*HOST_FILES, TRUST))


def bundle_files(place: Place, read: Mapping[str, bytes], uid: int = UID, owner: str | None = None) -> Phase:
    """Return the bundle's own copies of those; `uid`: who it is inside; `owner`: whose they are, None = the maker's."""
    files = {path.rpartition("/")[2]: read.get(path, b"") for path in HOST_FILES}
    # The second hop looks names up by itself, and finds there what the operator fixed.
    fixed = "".join(f"{address} {name}\n" for name, (address, _) in place.resolve.items())
    files["hosts"] = files["hosts"].rstrip(b"\n") + b"\n" + fixed.encode()
    files["trust.pem"] = read.get(TRUST, b"").rstrip(b"\n") + b"\n" + place.trust.encode()
    # ssh asks who it is before it does anything.
    files["passwd"] = f"bundle:x:{uid}:{uid}:bundle:/tmp:/usr/sbin/nologin\n".encode()
    steps = (
        WriteFile(place.at("bundle", name), data=data, mode="0644", owner=owner, group=owner)
        for name, data in files.items()
    )
    return Phase("bundle files", tuple(steps))


def route_table(plan: BottlePlan, place: Place, owner: str | None = None) -> Phase:
    """Return the rendered table, which a reload reads again."""
    files: dict[str, Any] = {"routes.json": plan.egress.table()}
    if place.runtime.pipelock:
        from bottle import pipelock  # with pydantic, which most launches do without

        files[second_hop.FILE] = pipelock.rendered(
            pipelock.model(plan.egress.routes, ["supervise"] if plan.supervise else ())
        )
    steps = (
        WriteFile(
            place.at("bundle", name), content=json.dumps(data, indent=1) + "\n", mode="0600", owner=owner, group=owner
        )
        for name, data in files.items()
    )
    return Phase("routes", tuple(steps))
