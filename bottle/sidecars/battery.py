"""What an agent would try against its bottle, each attempt by its id (docs/attacks.md); a line of JSON for each.

`bottle verify` runs this in a living bottle. It holds a bottle to what can be seen from inside, and changes nothing;
nothing is sent where it could leave. Standard library alone.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import stat
import termios
import time
from collections.abc import Callable
from urllib.parse import urlsplit

_proxy = urlsplit(os.environ.get("https_proxy", "http://127.0.0.1:8877"))
EGRESS = (_proxy.hostname or "127.0.0.1", _proxy.port or 8877)
GIT = (EGRESS[0], 8878)
NATIVE = (EGRESS[0], 9418)
QUESTION = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x00\x00\x01\x00\x01"
NOBODY = "192.0.2.1"
"""An address that belongs to no one (RFC 5737)."""
WAIT_S = 3.0
NEW_USER, NEW_MOUNTS, REMOUNT = 0x10000000, 0x20000, 0x20
OWN_KERNEL = os.uname().release.endswith("-gvisor")
"""gVisor's kernel has user namespaces of its own, and none of the host's stands behind one."""


def no_route() -> tuple[bool, str]:
    """True when there is no way for a packet to leave; then nothing below can reach anybody.

    An engine's network may name a gateway that nobody is: then nobody answers for its address either.
    """
    with open("/proc/net/route", encoding="ascii") as file:
        routes = [line.split() for line in file.readlines()[1:]]
    gateways = [socket.inet_ntoa(bytes.fromhex(route[2])[::-1]) for route in routes if route[1] == "00000000"]
    there = [gateway for gateway in gateways if gateway == "0.0.0.0" or answers(gateway)]
    return not there, f"{len(routes)} routes, gateways {gateways or 'none'}, of which {there or 'none'} is there"


def answers(address: str) -> bool:
    """True when somebody is at an address of one's own network: a refused connection is an answer, too."""
    for port in (22, 53, 2375):
        try:
            with socket.create_connection((address, port), WAIT_S):
                return True
        except ConnectionRefusedError:
            return True
        except OSError:
            continue
    return False


def datagram(address: tuple[str, int]) -> tuple[bool, str]:
    """True when nobody answers a datagram: that one was taken says nothing."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
            made.settimeout(1.0)
            made.sendto(QUESTION, address)
            return False, repr(made.recv(512))[:60]
    except OSError as error:
        return True, str(error)


def connects(family: int, address: tuple[str, int], kind: int = socket.SOCK_STREAM) -> tuple[bool, str]:
    """True when a socket gets nowhere."""
    try:
        with socket.socket(family, kind) as made:
            made.settimeout(WAIT_S)
            made.connect(address)
            return False, "connected"
    except OSError as error:
        return True, str(error)


def makes(family: int, kind: int, protocol: int = 0) -> tuple[bool, str]:
    """True when such a socket can't be made at all."""
    try:
        with socket.socket(family, kind, protocol):
            return False, "made"
    except OSError as error:
        return True, str(error)


def looks_up(name: str) -> tuple[bool, str]:
    """True when a name leads nowhere."""
    try:
        return False, str(socket.gethostbyname(name))
    except OSError as error:
        return True, str(error)


def looks_up_by(resolver: str) -> tuple[bool, str]:
    """True when a resolver knows no such name, or isn't there."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
            made.settimeout(2.0)
            made.sendto(QUESTION, (resolver, 53))
            data = made.recv(512)
    except OSError as error:
        return True, str(error)
    return data[3] & 15 in (2, 3, 5) and data[6:8] == b"\0\0", f"rcode {data[3] & 15}"


def asks(address: tuple[str, int], request: bytes) -> tuple[bool, str]:
    """True when a gate refuses a request, or nobody is behind that door."""
    try:
        with socket.create_connection(address, WAIT_S) as made:
            made.settimeout(WAIT_S)
            made.sendall(request)
            first = made.recv(4096).split(b"\r\n")[0].decode("latin-1")
    except OSError as error:
        return True, str(error)
    return first[9:12] in ("400", "403", "404", "405") or not first, first or "closed"


def asks_git(service: bytes, name: bytes) -> tuple[bool, str]:
    """True when the git gate answers with an error of git's own protocol (gitprotocol-pack(5)), or nobody is there."""
    words = service + b" " + name + b"\0host=bundle\0"
    try:
        with socket.create_connection(NATIVE, WAIT_S) as made:
            made.settimeout(WAIT_S)
            made.sendall(b"%04x" % (len(words) + 4) + words)
            said = made.recv(4096)
    except OSError as error:
        return True, str(error)
    return said[4:8] == b"ERR " or not said, said[4:].decode("latin-1").strip() or "closed"


def opens(path: str, flags: int) -> tuple[bool, str]:
    """True when a file can't be opened so; one that is made all the same is taken away."""
    there = os.path.lexists(path)
    try:
        os.close(os.open(path, flags))
    except OSError as error:
        return True, str(error)
    if not there:
        os.unlink(path)
    return False, "opened"


def unshares() -> tuple[bool, str]:
    """True when no user namespace can be made, or only one of gVisor's own kernel, and nothing is gained by it."""
    child = os.fork()
    if child == 0:
        ended = 0
        try:
            import ctypes

            made = ctypes.CDLL(None, use_errno=True).unshare(NEW_USER | NEW_MOUNTS) == 0
            ended = 1 if not made else 2 if OWN_KERNEL and gains_nothing() else 0
        finally:
            os._exit(ended)
    status = os.WEXITSTATUS(os.waitpid(child, 0)[1])
    return status != 0, "made in gVisor's own kernel: it gains nothing" if status == 2 else f"status {status}"


def gains_nothing() -> bool:
    """True when root in a user namespace gets no raw socket, no device, and nothing writable that wasn't."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    for place in ("/", "/run/bottle/ca.pem"):
        if libc.mount(b"none", place.encode(), b"none", REMOUNT, None) == 0:
            return False
    try:
        os.mknod("/tmp/verify", stat.S_IFBLK | 0o600, os.makedev(8, 0))
    except OSError:
        sockets = makes(socket.AF_PACKET, socket.SOCK_RAW), makes(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        return all(held for held, _ in sockets)
    os.unlink("/tmp/verify")
    return False


def status_says(name: str, wanted: str) -> tuple[bool, str]:
    """True when each line of /proc/self/status of that name has this value."""
    with open("/proc/self/status", encoding="ascii") as file:
        found = [line.split()[1] for line in file if line.startswith(name)]
    return bool(found) and set(found) == {wanted}, f"{name}: {' '.join(found)}"


def absent(*paths: str) -> tuple[bool, str]:
    """True when none of these is there."""
    found = [path for path in paths if os.path.lexists(path)]
    return not found, ", ".join(found) or "none is there"


def unset(*names: str) -> tuple[bool, str]:
    """True when none of these variables is set."""
    found = [name for name in names if name in os.environ]
    return not found, ", ".join(found) or "none is set"


def nowhere_below(text: bytes, *tops: str) -> tuple[bool, str]:
    """True when no small file below these directories, and no environment in sight, holds a text."""
    seen = 0
    places = [f"/proc/{each}/environ" for each in os.listdir("/proc") if each.isdigit()]
    for top in tops:
        for where, _, names in os.walk(top):
            places += [os.path.join(where, name) for name in names]
    for place in places[:20000]:
        try:
            if not os.path.isfile(place) or os.path.getsize(place) > 1 << 20:
                continue
            with open(place, "rb") as file:
                if text in file.read(1 << 20):
                    return False, place
            seen += 1
        except OSError:
            continue
    return True, f"not in {seen} files"


def strangers() -> tuple[bool, str]:
    """True when each process in sight is of this sandbox: none is the host's first, or a supervisor's."""
    names = []
    for each in os.listdir("/proc"):
        if each.isdigit():
            try:
                with open(f"/proc/{each}/cmdline", "rb") as file:
                    names.append(b" ".join(file.read(4096).split(b"\0")[:3]).decode("utf-8", "replace"))
            except OSError:
                continue
    odd = [name[:60] for name in names if "sidecars.init" in name or "dockerd" in name or "systemd" in name]
    return not odd and len(names) < 200, odd[0] if odd else f"{len(names)} processes"


def sets_clock() -> tuple[bool, str]:
    """True when the clock can't be set; it would be set to what it is."""
    try:
        time.clock_settime(time.CLOCK_REALTIME, time.time())
    except OSError as error:
        return True, str(error)
    return False, "set"


def types_ahead() -> tuple[bool, str]:
    """True when nothing can be typed into a controlling terminal: there is none, or it is refused."""
    try:
        fd = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
    except OSError as error:
        return True, str(error)
    try:
        fcntl.ioctl(fd, termios.TIOCSTI, b"\0")
    except OSError as error:
        return True, str(error)
    finally:
        os.close(fd)
    return False, "typed"


def connect(authority: str) -> bytes:
    """Return a CONNECT request."""
    return f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode()


WRITE = os.O_WRONLY | os.O_CREAT
SOCKETS = ("/run/docker.sock", "/var/run/docker.sock", "/run/podman/podman.sock", "/run/containerd/containerd.sock",
           "/run/dbus/system_bus_socket", "/run/tailscale/tailscaled.sock", "/tmp/.X11-unix")  # fmt: skip
VARIABLES = ("SSH_AUTH_SOCK", "GPG_AGENT_INFO", "DISPLAY", "WAYLAND_DISPLAY", "DBUS_SESSION_BUS_ADDRESS", "DOCKER_HOST")

FIRST = ("IP2", "a route out")
"""What is looked at before anything is tried."""

ATTEMPTS: tuple[tuple[str, str, Callable[[], tuple[bool, str]]], ...] = (
    ("IP1", "an address, without the gate", lambda: connects(socket.AF_INET, (NOBODY, 443))),
    ("IP3", "an IPv6 address", lambda: connects(socket.AF_INET6, ("2001:db8::1", 443))),
    ("IP4", "a link-local address", lambda: connects(socket.AF_INET6, ("fe80::1", 80))),
    ("IP12", "a cloud's metadata service", lambda: connects(socket.AF_INET, ("169.254.169.254", 80))),
    ("IP13", "an ICMP socket", lambda: makes(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)),
    ("IP14", "a packet socket", lambda: makes(socket.AF_PACKET, socket.SOCK_RAW)),
    ("IP15", "a datagram out", lambda: datagram((NOBODY, 443))),
    ("NB2", "sshd on the host's loopback", lambda: connects(socket.AF_INET, ("127.0.0.1", 22))),
    ("DN3", "a resolver of the agent's choice", lambda: datagram((NOBODY, 53))),
    ("DN1", "the engine's own resolver", lambda: looks_up_by("127.0.0.11")),
    ("DN4", "looking a name up", lambda: looks_up("verify.bottle.invalid")),
    ("NB8", "an engine's or a daemon's socket", lambda: absent(*SOCKETS)),
    ("NB9", "an agent of the operator's", lambda: unset(*VARIABLES)),
    ("SV1", "the operator's side", lambda: absent("/run/bottle/control.sock", "/run/bottle/doors/control.sock")),
    ("PX1", "a host without a route, through the gate", lambda: asks(EGRESS, connect("verify.bottle.invalid:443"))),
    ("PX2", "another port", lambda: asks(EGRESS, connect("verify.bottle.invalid:22"))),
    ("IP7", "an address, through the gate", lambda: asks(EGRESS, connect("0177.0.0.1:443"))),
    ("NB1", "the host's loopback, through the gate", lambda: asks(EGRESS, connect("127.0.0.1:443"))),
    ("PX28", "cleartext, through the gate", lambda: asks(
        EGRESS, b"GET http://verify.bottle.invalid/ HTTP/1.1\r\nHost: verify.bottle.invalid\r\n\r\n")),
    ("GI45", "a repository that isn't declared", lambda: asks(
        GIT, b"GET /../../verify/info/refs?service=git-upload-pack HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")),
    ("GI48", "pushing by a question", lambda: asks(
        GIT, b"GET /verify/info/refs?service=git-receive-pack HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")),
    ("GI45", "such a repository, by git's own protocol", lambda: asks_git(b"git-upload-pack", b"/../../verify")),
    ("GI48", "pushing to such a one", lambda: asks_git(b"git-receive-pack", b"/verify")),
    ("GI44", "an archive of one", lambda: asks_git(b"git-upload-archive", b"/verify")),
    ("CR10", "a private key within reach", lambda: nowhere_below(b"PRIVATE KEY-----", "/run", "/etc/ssl/certs")),
    ("CR11", "changing what is trusted", lambda: opens("/run/bottle/ca.pem", os.O_WRONLY)),
    ("ES1", "the kernel's settings", lambda: opens("/proc/sys/kernel/core_pattern", os.O_WRONLY)),
    ("ES1", "a control group's release agent", lambda: opens("/sys/fs/cgroup/release_agent", os.O_WRONLY)),
    ("ES1", "the root directory", lambda: opens("/verify", WRITE)),
    ("ES1", "the system's programs", lambda: opens("/usr/bin/verify", WRITE)),
    ("ES2", "a user namespace", unshares),
    ("ES3", "processes that aren't its own", strangers),
    ("ES4", "capabilities", lambda: status_says("Cap", "0000000000000000")),
    ("ES4", "new privileges", lambda: status_says("NoNewPrivs", "1")),
    ("ES10", "typing into a terminal", types_ahead),
    ("ES11", "a core dump", lambda: (__import__("resource").getrlimit(4) == (0, 0), "RLIMIT_CORE")),
    ("ES15", "the clock", sets_clock),
)  # fmt: skip


def main() -> None:
    """Try them all. Where a packet could leave, what would send one is not tried, and counts as not held."""
    closed, routes = no_route()
    print(json.dumps({"id": FIRST[0], "tried": FIRST[1], "held": closed, "came": routes[:200]}), flush=True)
    for name, what, attempt in ATTEMPTS:
        if not closed and name[:2] in ("IP", "DN", "NB"):
            held, came = False, "not tried: there is a route out"
        else:
            try:
                held, came = attempt()
            except OSError as error:
                held, came = True, str(error)
        print(json.dumps({"id": name, "tried": what, "held": held, "came": came[:200]}), flush=True)


if __name__ == "__main__":
    main()
