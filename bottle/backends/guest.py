"""What a guest is filled with, whatever it is isolated by: its authority, prompt, provider's files, workspace, git."""

from __future__ import annotations

from collections.abc import Mapping

from bottle.authority import Authority
from bottle.backends.base import UID, Phase, Place
from bottle.git_gate import git_config
from bottle.plan import CA_BUNDLE, CA_FILE, GUEST_HOME, GUEST_USER, PROMPT, BottlePlan
from opsexec.steps import MakeDir, Push, RemoveFile, WriteFile

FILES = {
    CA_FILE: "ca.pem",
    CA_BUNDLE: "ca.pem",
    PROMPT: "prompt.md",
    "/etc/passwd": "passwd",
    "/etc/group": "group",
    "/etc/hosts": "hosts",
    "/etc/resolv.conf": "resolv.conf",
    "/etc/nsswitch.conf": "nsswitch.conf",
}
"""What is bound into the guest, read-only: inside -> its name in the state's `guest` directory."""


def lay_out(place: Place, *more: str, owners: Mapping[str, str | None] | None = None) -> Phase:
    """Return the bottle's directories, each of them one user's alone: the launcher's, or the one in `owners`."""
    owned = owners or {}
    names = ("", "bundle", "guest", "home", *more)
    return Phase(
        "state",
        tuple(
            MakeDir(place.at(name).rstrip("/"), mode="0700", owner=owned.get(name), group=owned.get(name))
            for name in names
        ),
        # Audit and log stay: they say why it failed. `bottle cleanup` removes them.
        tuple(RemoveFile(place.at(name), recursive=True) for name in names if name),
    )


def provision(
    plan: BottlePlan,
    place: Place,
    authority: Authority,
    names: Mapping[str, str] | None = None,
    ids: tuple[int, int] = (UID, UID),
    owner: str | None = None,
) -> list[Phase]:
    """Return how the guest is filled, in the order that matters: nothing makes a TLS call before its CA is there.

    `names`: the files by which it looks names up, in the place of those that know the guest itself alone; `ids`: who
    the agent is; `owner`: whose its files are, None = the launcher's.
    """
    uid, gid = ids
    guest = {
        "ca.pem": authority.certificate,
        "prompt.md": plan.prompt,
        "passwd": f"root:x:0:0:root:/:/sbin/nologin\n{GUEST_USER}:x:{uid}:{gid}:agent:{GUEST_HOME}:/bin/bash\n",
        "group": f"root:x:0:\n{GUEST_USER}:x:{gid}:\n",
        "hosts": "127.0.0.1 localhost\n",
        "resolv.conf": "",
        "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
        **(names or {}),
    }
    phases = [
        Phase(
            "CA" if name == "ca.pem" else "prompt" if name == "prompt.md" else name,
            (
                WriteFile(
                    place.at("guest", name),
                    content=text,
                    mode="0600" if name == "prompt.md" else "0644",
                    owner=owner,
                    group=owner,
                ),
            ),
        )
        for name, text in guest.items()
    ]
    made = [MakeDir(in_home(place, path), mode="0700", parents=True) for path in plan.provider.directories]
    files = [
        WriteFile(in_home(place, each.path), content=each.content, mode=each.mode, parents=True)
        for each in plan.provider.files
    ]
    phases.append(Phase("provider files", (*made, *files)))
    skills = [(source, in_home(place, target)) for source, target in plan.skill_copies]
    copies = [step for source, to in skills for step in (MakeDir(to, mode="0755"), Push(f"{source}/", to, delete=True))]
    phases.append(Phase("skills", tuple(copies)))
    if plan.workspace.source is not None:
        target = in_home(place, plan.workspace.path)
        copy = Push(plan.workspace.source.rstrip("/") + "/", target)
        phases.append(Phase("workspace", (MakeDir(target, mode=plan.workspace.mode), copy)))
    if text := git_config(plan):
        phases.append(Phase("git", (WriteFile(in_home(place, f"{GUEST_HOME}/.gitconfig"), content=text),)))
    return [phase for phase in phases if phase.steps]


def in_home(place: Place, path: str) -> str:
    """Return where a path of the guest's home is kept."""
    inside = path.removeprefix(GUEST_HOME + "/")
    return place.at("home", *inside.split("/"))
