"""What Dockerfiles fetch while they are built, over HTTP as they fetch it: Debian's packages, and the agents' of npm.

Nothing is made up: the packages are those that scripts/images.sh and scripts/agents.sh have fetched before.
"""

from __future__ import annotations

import http.server
import json
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote


def pack(tree: Path, directory: Path) -> dict[str, dict[str, Path]]:
    """Pack each package of a `node_modules` below a directory again; returns name -> version -> its tarball."""
    found: dict[str, dict[str, Path]] = {}
    for manifest in sorted((tree / "node_modules").glob("@*/*/package.json")):
        about = json.loads(manifest.read_text("utf-8"))
        name, version = str(about["name"]), str(about["version"])
        tarball = directory / f"{name.replace('/', '-').lstrip('@')}-{version}.tgz"
        with tarfile.open(tarball, "w:gz", compresslevel=0) as tar:
            tar.add(manifest.parent, "package")
        found.setdefault(name, {})[version] = tarball
    return found


@contextmanager
def package_shelf(address: str, debs: Path, packages: dict[str, dict[str, Path]], served: list[str]) -> Iterator[str]:
    """Serve them at an address; yields the URL: Debian's below `/debs/`, npm's at the top. `served`: the names."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = unquote(self.path.partition("?")[0]).lstrip("/")
            kind, _, name = path.partition("/")
            if path in packages:
                self.say(json.dumps(self.about(path)).encode())
            elif kind == "debs" and (debs / Path(name).name).is_file():
                self.file(debs / Path(name).name)
            elif kind == "npm":
                self.file(next(each for kept in packages.values() for each in kept.values() if each.name == name))
            else:
                self.send_error(404)

        def about(self, name: str) -> dict[str, Any]:
            """Return what npm asks first: each version with the manifest it has in its tarball."""
            versions = {}
            for version, tarball in packages[name].items():
                with tarfile.open(tarball) as tar:
                    manifest = tar.extractfile("package/package.json")
                    assert manifest is not None
                    dist = {"tarball": f"http://{self.headers['host']}/npm/{tarball.name}"}
                    versions[version] = {**json.load(manifest), "dist": dist}
            return {"name": name, "versions": versions, "dist-tags": {"latest": min(versions, key=len)}}

        def say(self, data: bytes) -> None:
            self.send_response(200)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def file(self, path: Path) -> None:
            served.append(path.name)
            self.send_response(200)
            self.send_header("content-length", str(path.stat().st_size))
            self.end_headers()
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    self.wfile.write(block)

        def log_message(self, format: str, *args: object) -> None:
            """What was fetched shows in the image."""

    server = http.server.ThreadingHTTPServer((address, 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://{address}:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
