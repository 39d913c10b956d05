"""A plan as Steps for bubblewrap: a bundle on the host's network, and an agent with the bundle's sockets alone."""

from __future__ import annotations

import json
from collections.abc import Mapping

from bottle.authority import Authority
from bottle.backends.base import UID, Phase, Place
from bottle.credentials import Credentials
from bottle.errors import HostUnready
from bottle.git_gate import DAEMON, WORK_BYTES, configuration, git_config
from bottle.plan import CA_BUNDLE, CA_FILE, EGRESS_PORT, GIT_PORT, GUEST_HOME, GUEST_USER, PROMPT, RUN, BottlePlan
from opsexec.secret import Secret, reveal
from opsexec.steps import MakeDir, Push, ReadFile, RemoveFile, SandboxRun, WriteFile

CODE = "/run/bundle/code"
CONFIG = "/run/bundle/config"
SYSTEM = {"/usr": "/usr/"}
LINKS = {"/bin": "usr/bin", "/sbin": "usr/sbin", "/lib": "usr/lib", "/lib64": "usr/lib64"}
HOST_FILES = ("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf")
TRUST = "/etc/ssl/certs/ca-certificates.crt"


def lay_out(place: Place) -> Phase:
    """Return the directories, all of them the launcher's alone."""
    names = ("", "bundle", "guest", "doors", "home")
    return Phase(
        "state",
        tuple(MakeDir(place.at(name).rstrip("/"), mode="0700", parents=True) for name in names),
        # Audit and log stay: they say why it failed. `bottle cleanup` removes them.
        tuple(RemoveFile(place.at(name), recursive=True) for name in names if name),
    )


def surroundings(plan: BottlePlan, place: Place) -> list[Phase]:
    """Return nothing: a sandbox needs no image, and no network but the kernel's own."""
    return []


def host_reads() -> tuple[ReadFile, ...]:
    """Return what is read of the host for the bundle: how it looks names up, and whom it trusts."""
    return tuple(ReadFile(path, max_bytes=4 << 20) for path in (*HOST_FILES, TRUST))


def bundle_files(place: Place, read: Mapping[str, bytes]) -> Phase:
    """Return the bundle's own copies of those."""
    files = [WriteFile(place.at("bundle", path.rpartition("/")[2]), data=read.get(path, b"")) for path in HOST_FILES]
    trust = read.get(TRUST, b"").rstrip(b"\n") + b"\n" + place.trust.encode()
    files.append(WriteFile(place.at("bundle", "trust.pem"), data=trust))
    # ssh asks who it is before it does anything.
    user = f"bundle:x:{UID}:{UID}:bundle:/tmp:/usr/sbin/nologin\n"
    return Phase("bundle files", (*files, WriteFile(place.at("bundle", "passwd"), content=user, mode="0644")))


def daemons(plan: BottlePlan) -> set[str]:
    """Return the names of the daemons that a plan's bundle runs."""
    return {"egress", DAEMON} if plan.repositories else {"egress"}


def bundle_run(plan: BottlePlan, place: Place, secrets: Credentials, authority: Authority) -> SandboxRun:
    """Return the bundle: the supervisor, behind it egress and, if it is wanted, the git gate. Secrets go by stdin."""
    config = {
        "bottle": plan.identity,
        "socket": "/run/bundle/doors/egress.sock",
        "table": f"{CONFIG}/routes.json",
        "trust": f"{CONFIG}/trust.pem",
        "work_dir": "/tmp/egress",
        "routes": plan.egress.table(),
        "resolve": {host: [address, port] for host, (address, port) in place.resolve.items()},
        "ca": authority.key_and_certificate.reveal(),
        "tokens": {slot: value.reveal() for slot, value in secrets.tokens.items()},
        "known": [[name, reveal(value)] for name, value in secrets.env.items()],
    }
    python = place.runtime.python
    env = {
        "PYTHONPATH": CODE,
        "PYTHONDONTWRITEBYTECODE": "1",
        "PATH": "/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "BOTTLE_IDENTITY": plan.identity,
    }
    running = {
        "egress": {
            "argv": [python, "-m", "bottle.sidecars.egress.serve"],
            "env": {**env, "HOME": "/tmp"},
            "stdin": json.dumps(config),
        }
    }
    bound = {tree: f"{tree}/" for tree in place.runtime.trees}
    git = place.runtime.git
    if plan.repositories:
        if git is None:
            raise HostUnready("a bottle with repositories needs the git gate's programs", hint="run scripts/setup.sh")
        told = configuration(plan, secrets, "/run/bundle/doors/git.sock", "/tmp/git", git.gitleaks)
        argv = [git.python, "-m", "bottle.sidecars.git_gate.serve"]
        running[DAEMON] = {"argv": argv, "env": {**env, "HOME": "/tmp"}, "stdin": json.dumps(told)}
        bound |= {tree: f"{tree}/" for tree in git.trees} | {f"{CODE}/opsexec": f"{git.opsexec}/"}
    return SandboxRun(
        name=f"{plan.identity}.bundle",
        argv=[python, "-m", "bottle.sidecars.init"],
        env=env,
        network=True,
        hostname="bundle",
        read_only={
            **SYSTEM,
            **bound,
            f"{CODE}/bottle": f"{place.runtime.code}/",
            CONFIG: place.at("bundle") + "/",
            **{path: place.at("bundle", path.rpartition("/")[2]) for path in (*HOST_FILES, "/etc/passwd")},
        },
        writable={"/run/bundle/doors": place.at("doors") + "/"},
        links=LINKS,
        tmpfs=("/tmp",),
        tmpfs_bytes=WORK_BYTES if plan.repositories else 64 << 20,
        stdin=Secret(json.dumps({"daemons": running}) + "\n"),
    )


def route_table(plan: BottlePlan, place: Place) -> Phase:
    """Return the rendered table, which a reload reads again."""
    text = json.dumps(plan.egress.table(), indent=1) + "\n"
    return Phase("routes", (WriteFile(place.at("bundle", "routes.json"), content=text, mode="0600"),))


def provision(plan: BottlePlan, place: Place, authority: Authority) -> list[Phase]:
    """Return how the guest is filled, in the order that matters: nothing makes a TLS call before its CA is there."""
    guest = {
        "ca.pem": authority.certificate,
        "prompt.md": plan.prompt,
        "passwd": f"root:x:0:0:root:/:/sbin/nologin\n{GUEST_USER}:x:{UID}:{UID}:agent:{GUEST_HOME}:/bin/bash\n",
        "group": f"root:x:0:\n{GUEST_USER}:x:{UID}:\n",
        "hosts": "127.0.0.1 localhost\n",
        "resolv.conf": "",
        "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    }
    phases = [
        Phase(
            "CA" if name == "ca.pem" else "prompt" if name == "prompt.md" else name,
            (WriteFile(place.at("guest", name), content=text, mode="0600" if name == "prompt.md" else "0644"),),
        )
        for name, text in guest.items()
    ]
    made = [MakeDir(_in_home(place, path), mode="0700", parents=True) for path in plan.provider.directories]
    files = [
        WriteFile(_in_home(place, each.path), content=each.content, mode=each.mode, parents=True)
        for each in plan.provider.files
    ]
    phases.append(Phase("provider files", (*made, *files)))
    if plan.workspace.source is not None:
        target = _in_home(place, plan.workspace.path)
        copy = Push(plan.workspace.source.rstrip("/") + "/", target)
        phases.append(Phase("workspace", (MakeDir(target, mode=plan.workspace.mode), copy)))
    if text := git_config(plan):
        phases.append(Phase("git", (WriteFile(_in_home(place, f"{GUEST_HOME}/.gitconfig"), content=text),)))
    return [phase for phase in phases if phase.steps]


def _in_home(place: Place, path: str) -> str:
    inside = path.removeprefix(GUEST_HOME + "/")
    return place.at("home", *inside.split("/"))


def guest_run(plan: BottlePlan, place: Place) -> None:
    """Return None: each program of the agent's has a sandbox of its own."""


def agent_run(plan: BottlePlan, place: Place, secrets: Credentials, argv: tuple[str, ...] | None = None) -> SandboxRun:
    """Return the agent's own sandbox; `argv`: another program in the same place, like the provider's checks."""
    guest = {
        CA_FILE: "ca.pem",
        CA_BUNDLE: "ca.pem",
        PROMPT: "prompt.md",
        "/etc/passwd": "passwd",
        "/etc/group": "group",
        "/etc/hosts": "hosts",
        "/etc/resolv.conf": "resolv.conf",
        "/etc/nsswitch.conf": "nsswitch.conf",
    }
    doors = {str(EGRESS_PORT): f"{RUN}/doors/egress.sock"} if plan.egress.routes else {}
    if plan.repositories:
        doors[str(GIT_PORT)] = f"{RUN}/doors/git.sock"
    return SandboxRun(
        name=f"{plan.identity}.agent",
        argv=argv or plan.command,
        env={**plan.guest_env(), **secrets.env},
        cwd=plan.workspace.workdir,
        hostname="bottle",
        uid=UID,
        gid=UID,
        read_only={
            **SYSTEM,
            "/etc/alternatives": "/etc/alternatives/",
            **{inside: place.at("guest", name) for inside, name in guest.items()},
            f"{RUN}/doors": place.at("doors") + "/",
        },
        writable={GUEST_HOME: place.at("home") + "/"},
        links=LINKS,
        tmpfs=("/tmp", "/var/tmp"),
        doors=doors,
    )
