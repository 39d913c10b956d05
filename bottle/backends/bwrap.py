"""A plan as Steps for bubblewrap: a bundle on the host's network, and an agent with the bundle's sockets alone."""

from __future__ import annotations

from collections.abc import Mapping

from bottle.authority import Authority
from bottle.backends import bundle as bundles
from bottle.backends import guest
from bottle.backends.base import UID, Phase, Place
from bottle.backends.bundle import CONFIG, DOORS, HOST_FILES
from bottle.credentials import Credentials
from bottle.dns import NAMES
from bottle.git_gate import WORK_BYTES
from bottle.limits import BUNDLE
from bottle.plan import GUEST_HOME, RUN, TOOLS, BottlePlan
from opsexec.errors import OpsError
from opsexec.steps import ReadFile, SandboxRun

SYSTEM = {"/usr": "/usr/"}
TMPFS_BYTES = 512 << 20
LINKS = {"/bin": "usr/bin", "/sbin": "usr/sbin", "/lib": "usr/lib", "/lib64": "usr/lib64"}


def lay_out(place: Place) -> Phase:
    """Return the directories, all of them the launcher's alone."""
    return guest.lay_out(place, "doors")


def surroundings(plan: BottlePlan, place: Place) -> list[Phase]:
    """Return nothing: a sandbox needs no image, and no network but the kernel's own."""
    return []


def elsewhere(error: OpsError) -> bool:
    """Return False: nothing of a sandbox's is anybody else's too."""
    return False


def host_reads() -> tuple[ReadFile, ...]:
    """Return what is read of the host for the bundle: how it looks names up, and whom it trusts."""
    return bundles.host_reads()


def bundle_files(place: Place, read: Mapping[str, bytes]) -> Phase:
    """Return the bundle's own copies of those."""
    return bundles.bundle_files(place, read)


def route_table(plan: BottlePlan, place: Place) -> Phase:
    """Return the rendered table, which a reload reads again."""
    return bundles.route_table(plan, place)


def daemons(plan: BottlePlan, place: Place) -> set[str]:
    """Return the names of the daemons that a plan's bundle runs."""
    return bundles.daemons(plan, place, None)


def bundle_run(plan: BottlePlan, place: Place, secrets: Credentials, authority: Authority) -> SandboxRun:
    """Return the bundle: the supervisor, behind it egress and, if it is wanted, the git gate. Secrets go by stdin."""
    made = bundles.bundle(plan, place, secrets, authority)
    return SandboxRun(
        name=f"{plan.identity}.bundle",
        argv=made.argv,
        env=made.env,
        network=True,
        hostname="bundle",
        read_only={
            **SYSTEM,
            **made.trees,
            CONFIG: place.at("bundle") + "/",
            **{path: place.at("bundle", path.rpartition("/")[2]) for path in (*HOST_FILES, "/etc/passwd")},
        },
        writable={DOORS: place.at("doors") + "/"},
        links=LINKS,
        tmpfs=("/tmp",),
        tmpfs_bytes=WORK_BYTES if plan.repositories else 64 << 20,
        max_processes=BUNDLE.processes,
        max_memory_bytes=BUNDLE.memory,
        pid_one=True,
        stdin=made.told,
    )


def provision(plan: BottlePlan, place: Place, authority: Authority) -> list[Phase]:
    """Return how the guest is filled, in the order that matters."""
    # Each door is on the guest's own loopback; with files alone, whatever else is looked up is no name at once.
    return guest.provision(plan, place, authority, {"hosts": f"127.0.0.1 localhost {' '.join(NAMES)}\n"})


def guest_run(plan: BottlePlan, place: Place) -> None:
    """Return None: each program of the agent's has a sandbox of its own."""


def guest_tmpfs(plan: BottlePlan) -> int:
    """Return how much each of the guest's directories in memory may hold: full, they leave its programs most of it."""
    return min(TMPFS_BYTES, max(plan.limits.memory // 8, 1 << 20)) if plan.limits.memory else TMPFS_BYTES


def home_watch(plan: BottlePlan, place: Place) -> None:
    """Return None: the sandbox itself is watched."""


def agent_run(plan: BottlePlan, place: Place, secrets: Credentials, argv: tuple[str, ...] | None = None) -> SandboxRun:
    """Return the agent's own sandbox; `argv`: another program in the same place, like the provider's checks."""
    behind = {str(port): f"{RUN}/doors/{name}" for port, name in bundles.doors(plan).items()}
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
            **({TOOLS: f"{place.runtime.tools}/"} if place.runtime.tools else {}),
            **{tree: f"{tree}/" for tree in plan.host_trees},
            **{inside: place.at("guest", name) for inside, name in guest.FILES.items()},
            f"{RUN}/doors": place.at("doors") + "/",
        },
        writable={GUEST_HOME: place.at("home") + "/"},
        links=LINKS,
        tmpfs=("/tmp", "/var/tmp"),
        doors=behind,
        max_processes=plan.limits.processes,
        max_memory_bytes=plan.limits.memory,
        max_cpus=plan.limits.cpus,
        tmpfs_bytes=guest_tmpfs(plan),
        max_tree_bytes=plan.limits.home,
        max_tree_files=plan.limits.files,
        expendable=True,
    )
