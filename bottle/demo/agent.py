"""The demo's agent: it tells what it tries and what came of it. Runs in the bottle, on the standard library alone."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Callable


def tell(what: str, came: str) -> None:
    """Say one line, and keep it for the launcher."""
    print(json.dumps({"tried": what, "came": came}), flush=True)


def get(url: str, data: bytes | None = None, headers: dict[str, str] | None = None) -> str:
    """Make a request as any program would."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers or {}), timeout=10) as answer:
            return f"{answer.status} {answer.read().decode()}"
    except urllib.error.HTTPError as error:
        return f"{error.code} {error.read().decode().strip()}"
    except OSError as error:
        return str(error)


def attempt(work: Callable[[], object]) -> str:
    """Return what an attempt ends in."""
    try:
        return f"went through: {work()!r}"
    except OSError as error:
        return f"{type(error).__name__}: {error}"


def outside() -> str:
    """Try an address that belongs to nobody (RFC 5737); not even that where a packet could leave."""
    with open("/proc/net/route", encoding="ascii") as file:
        if len(file.readlines()) > 1:
            return "there is a route out"
    return attempt(lambda: socket.create_connection(("192.0.2.1", 443), 3))


def raw_tunnel(port: int) -> str:
    """Ask the gate for a tunnel to an address, then for one to an allowed host that carries no TLS: what it says."""
    said = []
    for target in (f"127.0.0.1:{port}", "api.demo.test:443"):
        with socket.create_connection(("127.0.0.1", 8877), 5) as made:
            made.settimeout(5)
            made.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
            first = made.recv(4096).split(b"\r\n")[0].decode("latin-1")
            made.sendall(b"SSH-2.0-agent\r\n\r\n") if " 200 " in first else None
            said.append(f"{first}; {made.recv(4096)[:60]!r}" if " 200 " in first else first)
    return " | ".join(said)


def git(*words: str) -> str:
    """Run git as any agent would; returns its status and all it said."""

    async def ran() -> str:
        process = await asyncio.create_subprocess_exec(
            "git", *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        out, _ = await process.communicate()
        return f"{process.returncode} {out.decode().strip()}"

    return asyncio.run(ran())


def with_git(upstream: str) -> None:
    """Clone, commit and push; then push a value the bottle holds."""
    git("clone", "-q", upstream, "site")
    os.chdir("site")
    tell("clone through the git gate", git("rev-parse", "HEAD"))
    for name, text in (("clean", "a line of work\n"), ("secret", os.environ["HELD"] + "\n")):
        with open(name, "w", encoding="utf-8") as file:
            file.write(text)
        git("add", name)
        git("commit", "-q", "-m", f"add {name}")
        if name == "clean":
            tell("the commit", git("rev-parse", "HEAD"))
        tell(f"push a {name} commit", git("push", "-q", "origin", f"HEAD:refs/heads/{name}"))
    tell("push to main", git("push", "-q", "origin", "HEAD~1:refs/heads/main"))


def main(port: int, upstream: str) -> None:
    """Try everything; `port` is a listener on the host's loopback, `upstream` the repository's own address."""
    environment = {name: value for name, value in os.environ.items() if "TOKEN" in name or "KEY" in name}
    tell("look for a credential in the environment", json.dumps(environment))
    tell("an allowed request", get("https://api.demo.test/v1/models"))
    tell(
        "the same with a token of its own",
        get("https://api.demo.test/v1/models", None, {"authorization": "Bearer mine"}),
    )
    tell("a path that isn't granted", get("https://api.demo.test/v1/../admin"))
    tell("a host that isn't granted", get("https://evil.demo.test/"))
    tell("send a value it holds", get("https://api.demo.test/v1/x", os.environ["HELD"].encode()))
    with_git(upstream)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        os.environ.pop(name, None)
    tell("the API's address, without the gate", attempt(lambda: socket.create_connection(("127.0.0.1", port), 3)))
    tell("an address of the internet", outside())
    tell("DNS", attempt(lambda: socket.gethostbyname("api.demo.test")))
    try:
        tell("raw TCP through the gate", raw_tunnel(port))
    except OSError as error:
        tell("raw TCP through the gate", str(error))
    tell("the kernel's settings", attempt(lambda: os.open("/proc/sys/kernel/core_pattern", os.O_WRONLY)))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
