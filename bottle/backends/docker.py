"""A plan as Steps for Docker: the agent's container on a network without a gateway, and the bundle's, which has two.

The inner network holds those two alone; the host has no address on it. The outer one is the bundle's only, and leads
wherever the engine's networks lead.
"""

from __future__ import annotations

import hashlib
import io
import ipaddress
import tarfile
from collections.abc import Mapping

from bottle.authority import Authority
from bottle.backends import bundle as bundles
from bottle.backends import guest
from bottle.backends.base import UID, Phase, Place
from bottle.backends.bundle import CONFIG, DOORS
from bottle.credentials import Credentials
from bottle.errors import BadManifest
from bottle.git_gate import WORK_BYTES
from bottle.limits import MOST_CPUS
from bottle.plan import BUNDLE, GUEST_HOME, BottlePlan
from opsexec.errors import AddressesTaken, MadeDifferently, OpsError
from opsexec.steps import (
    ContainerExec,
    ContainerRemove,
    ContainerRun,
    Exec,
    ImageBuild,
    NetworkCreate,
    NetworkRemove,
    ReadFile,
    SandboxRun,
    Step,
)
from opsexec.steps.container_copies import GivenFile
from opsexec.steps.container_shape import Attachment

BUNDLE_UID = 1001
"""Who the bundle is, outside as well, where root starts it; elsewhere both are who starts them."""

POOL = ipaddress.IPv4Network("198.18.0.0/15")
"""Where inner networks are cut from: addresses for measuring networks (RFC 2544), which nobody's upstream has."""

PREFIX = 29
SLOTS = 1 << (PREFIX - POOL.prefixlen)
OURS = {"bottle.image": "1"}
BUNDLE_IMAGE = "bottle-bundle:1"
BUNDLE_DOCKERFILE = "FROM scratch\nADD root.tar /\n"
ROOT_LINKS = ("bin", "lib", "lib64", "sbin")
RUNTIME = "runsc"
"""What the agent is run by where the engine has it: a kernel of its own in front of the host's (gVisor)."""

READY = "ready"
HOLD = f"echo {READY}; exec cat"
"""What the agent's container is for: to last until the end of its input, which comes when the launcher is gone."""

NO_LIMIT = 1 << 50
MOST_PROCESSES = 1 << 22
"""What stands for no bound: more than a machine has."""

TMP_BYTES = 512 << 20
BUNDLE_MEMORY = 1 << 30
"""Bytes of the bundle's own, beside what its memory disk holds."""


def labels(place: Place) -> dict[str, str]:
    """Return what everything of a bottle carries: whose it is, and of which home root."""
    return {"bottle.identity": place.identity, "bottle.root": root_label(place.state)}


def root_label(state: str) -> str:
    """Return what stands for a home root, or for another host's directory of bottles, on an engine that others use too.

    `state`: a bottle's directory in it.
    """
    above = state.rpartition("/")[0]
    root = above.removesuffix("/state") if above.endswith("/state") else f"{above}/"
    return hashlib.sha256(root.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def names(place: Place) -> dict[str, str]:
    """Return what the parts of a bottle are called: containers `agent` and `bundle`, networks `inner` and `outer`."""
    return {part: f"bottle-{place.identity}-{part}" for part in ("agent", "bundle", "inner", "outer")}


def addresses(place: Place) -> tuple[str, str, str]:
    """Return the inner network, and on it the bundle's address and the agent's."""
    seed = f"{place.state}#{place.attempt}".encode("utf-8", "surrogateescape")
    slot = int.from_bytes(hashlib.sha256(seed).digest()[:4], "big") % SLOTS
    network = ipaddress.IPv4Network((int(POOL.network_address) + slot * (1 << (32 - PREFIX)), PREFIX))
    return str(network), str(network[2]), str(network[3])


def elsewhere(error: OpsError) -> bool:
    """True for an error that another attempt may not meet: somebody else has that network's addresses, or this bottle's
    own network was left by a launch that had found others.
    """
    return isinstance(error, (AddressesTaken, MadeDifferently))


def _owners(place: Place) -> tuple[str | None, str | None]:
    """Return whose the agent's files and the bundle's are to be, None = whoever makes them."""
    return (str(UID), str(BUNDLE_UID)) if place.plain is None else (None, None)


def _ids(place: Place) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return (uid, gid) of the agent and of the bundle."""
    return ((UID, UID), (BUNDLE_UID, BUNDLE_UID)) if place.plain is None else (place.plain, place.plain)


def lay_out(place: Place) -> Phase:
    """Return the directories, none of them for others than who needs it."""
    agent, bundle = _owners(place)
    return guest.lay_out(place, owners={"home": agent, "bundle": bundle})


def surroundings(plan: BottlePlan, place: Place) -> list[Phase]:
    """Return the two networks and the bundle's image. Where the bottle was here before, its containers go beside that:
    a network that was left is the same one.
    """
    named, carried = names(place), labels(place)
    inner = NetworkCreate(name=named["inner"], labels=carried, internal=True, gateway=False, subnet=addresses(place)[0])
    outer = NetworkCreate(name=named["outer"], labels=carried, internal=False, gateway=True)
    root = GivenFile("root.tar", content=_root_tar().decode("ascii"))
    own = ImageBuild(name=BUNDLE_IMAGE, dockerfile=BUNDLE_DOCKERFILE, labels=OURS, files=(root,))
    left = leftovers(place)[:2] if place.again else ()
    # An engine is slowest with networks: what is quickly answered is asked behind them.
    return [
        Phase("inner network", (inner,)),
        Phase("outer network", (outer,), ending=leftovers(place)),
        Phase("bundle image", (own,)),
        *([Phase("left over", left)] if left else []),
    ]


def _root_tar() -> bytes:
    """Return the bundle's root file system: links to where the host's own programs are bound. The same bytes always."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        # What is mounted over a directory takes its mode.
        for name in ("tmp", DOORS.lstrip("/")):
            directory = tarfile.TarInfo(name)
            directory.type, directory.mode = tarfile.DIRTYPE, 0o1777
            tar.addfile(directory)
        for name in ROOT_LINKS:
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, f"usr/{name}"
            tar.addfile(link)
    return made.getvalue()


def host_reads() -> tuple[ReadFile, ...]:
    """Return what is read of the host for the bundle."""
    return bundles.host_reads()


def bundle_files(place: Place, read: Mapping[str, bytes]) -> Phase:
    """Return the bundle's own copies of those."""
    return bundles.bundle_files(place, read, _ids(place)[1][0], _owners(place)[1])


def route_table(plan: BottlePlan, place: Place) -> Phase:
    """Return the rendered table, which a reload reads again."""
    return bundles.route_table(plan, place, _owners(place)[1])


def daemons(plan: BottlePlan, place: Place) -> set[str]:
    """Return the names of the daemons that a plan's bundle runs."""
    return bundles.daemons(plan, place, BUNDLE)


def bundle_run(plan: BottlePlan, place: Place, secrets: Credentials, authority: Authority) -> ContainerRun:
    """Return the bundle's container, on both networks, its ports on the inner one alone. Secrets go by stdin."""
    _, address, _ = addresses(place)
    made = bundles.bundle(plan, place, secrets, authority, address)
    named = names(place)
    uid, gid = _ids(place)[1]
    work = WORK_BYTES if plan.repositories else 64 << 20
    return ContainerRun(
        name=named["bundle"],
        image=BUNDLE_IMAGE,
        labels=labels(place),
        argv=made.argv,
        env=made.env,
        user=f"{uid}:{gid}",
        workdir="/tmp",
        hostname=BUNDLE,
        read_only={
            "/usr": "/usr/",
            **made.trees,
            CONFIG: place.at("bundle") + "/",
            **{f"/etc/{name}": place.at("bundle", name) for name in ("hosts", "nsswitch.conf", "passwd")},
        },
        tmpfs={"/tmp": work, DOORS: 1 << 20},
        networks=(Attachment(named["outer"]), Attachment(named["inner"], ipv4=address)),
        memory_bytes=BUNDLE_MEMORY + work * (2 if plan.repositories else 1),
        syscalls="tight",
        stdin=made.told,
    )


def provision(plan: BottlePlan, place: Place, authority: Authority) -> list[Phase]:
    """Return how the guest is filled, in the order that matters: its image, its files; last its home is the agent's."""
    if plan.image is None:
        raise BadManifest("there is no image for the agent", hint="name one: agent_provider.dockerfile")
    _, address, _ = addresses(place)
    outer = names(place)["outer"]
    image = ImageBuild(name=plan.image.name, dockerfile=plan.image.text, labels=OURS, network=outer)
    looked_up = {
        "hosts": f"127.0.0.1 localhost\n{address} {BUNDLE}\n",
        "resolv.conf": f"nameserver {address}\noptions timeout:2 attempts:1\n",
        "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    }
    owner = _owners(place)[0]
    phases = [Phase("image", (image,)), *guest.provision(plan, place, authority, looked_up, _ids(place)[0], owner)]
    if owner is not None:
        # Of a home that was there before nearly all is the agent's: what isn't is chowned, with all that is in it.
        others = ("(", "!", "-uid", owner, "-o", "!", "-gid", owner, ")")
        chown = ("-exec", "/usr/bin/chown", "-hR", f"{owner}:{owner}", "{}", "+", "-prune")
        phases.append(Phase("owner", (Exec(("/usr/bin/find", "-P", place.at("home"), *others, *chown)),)))
    return phases


def guest_run(plan: BottlePlan, place: Place) -> ContainerRun:
    """Return the agent's container, which waits; the agent is a program that is run in it."""
    if plan.image is None:
        raise BadManifest("there is no image for the agent", hint="name one: agent_provider.dockerfile")
    _, address, own = addresses(place)
    named = names(place)
    uid, gid = _ids(place)[0]
    return ContainerRun(
        name=named["agent"],
        image=plan.image.name,
        labels=labels(place),
        argv=("/bin/sh", "-c", HOLD),
        env=plan.guest_env(),
        user=f"{uid}:{gid}",
        workdir=GUEST_HOME,
        hostname="bottle",
        read_only={
            **{inside: place.at("guest", name) for inside, name in guest.FILES.items()},
            **{tree: f"{tree}/" for tree in plan.host_trees},
        },
        writable={GUEST_HOME: place.at("home") + "/"},
        tmpfs={"/tmp": TMP_BYTES, "/var/tmp": TMP_BYTES},
        networks=(Attachment(named["inner"], ipv4=own),),
        dns=(address,),
        memory_bytes=plan.limits.memory or NO_LIMIT,
        cpus=plan.limits.cpus or MOST_CPUS,
        pids=plan.limits.processes or MOST_PROCESSES,
        runtime=RUNTIME,
        runtime_optional=True,
        init=True,
        syscalls="tight",
    )


def home_watch(plan: BottlePlan, place: Place) -> SandboxRun | None:
    """Return a watch over the home on the host's disk, which an engine sets no bound to.

    It is a sandbox with that one directory, which does nothing and is ended for what grows there.
    """
    if not plan.limits.home and not plan.limits.files:
        return None
    return SandboxRun(
        name=f"{place.identity}.home",
        argv=("/usr/bin/cat",),
        read_only={"/usr": "/usr/"},
        writable={GUEST_HOME: place.at("home") + "/"},
        links={f"/{name}": f"usr/{name}" for name in ROOT_LINKS},
        max_tree_bytes=plan.limits.home,
        max_tree_files=plan.limits.files,
    )


def agent_run(
    plan: BottlePlan, place: Place, secrets: Credentials, argv: tuple[str, ...] | None = None
) -> ContainerExec:
    """Return the agent; `argv`: another program in its container, like the provider's checks."""
    return ContainerExec(
        name=names(place)["agent"],
        labels=labels(place),
        argv=argv or plan.command,
        env=dict(secrets.env),
        workdir=plan.workspace.workdir,
    )


def leftovers(place: Place) -> tuple[Step, ...]:
    """Return what takes away all that a bottle may have on an engine."""
    named, carried = names(place), labels(place)
    gone = tuple(ContainerRemove(name=named[part], labels=carried) for part in ("agent", "bundle"))
    return (*gone, *(NetworkRemove(name=named[part], labels=carried) for part in ("inner", "outer")))
