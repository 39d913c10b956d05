"""An upstream for real clients: what pip, npm, apt and curl fetch, streams without an end in sight, WebSockets."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import os
import struct
import tarfile
import threading
import zipfile
import zlib
from pathlib import Path

from tests.parts.upstream_tls import Arrived, RequestHandler, Upstream, plain_handler

BLOCK = 1 << 20
LARGE = 100 << 20


def wheel(name: str, version: str) -> bytes:
    """A wheel with one module."""
    out = io.BytesIO()
    about = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": f"VERSION = {version!r}\n",
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in [*files, f"{about}/RECORD"])
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, text in {**files, f"{about}/RECORD": record}.items():
            archive.writestr(path, text)
    return out.getvalue()


def npm_tarball(name: str, version: str) -> bytes:
    """A package as npm takes it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        texts = {
            "package/package.json": json.dumps({"name": name, "version": version, "main": "index.js"}),
            "package/index.js": f"module.exports = {version!r};\n",
        }
        for path, text in texts.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
    return out.getvalue()


def packument(host: str, name: str, version: str, tarball: bytes) -> bytes:
    """What a registry says of a package."""
    digest = "sha512-" + base64.b64encode(hashlib.sha512(tarball).digest()).decode()
    file = f"https://{host}/{name}/-/{name.rpartition('/')[2]}-{version}.tgz"
    dist = {"tarball": file, "integrity": digest, "shasum": hashlib.sha1(tarball).hexdigest()}
    versions = {version: {"name": name, "version": version, "main": "index.js", "dist": dist}}
    return json.dumps({"name": name, "dist-tags": {"latest": version}, "versions": versions}).encode()


def deb(name: str, version: str) -> bytes:
    """A Debian package with one file in it."""

    def packed(files: dict[str, str]) -> bytes:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w:gz") as archive:
            for path, text in files.items():
                entry = tarfile.TarInfo(path)
                entry.size = len(text.encode())
                archive.addfile(entry, io.BytesIO(text.encode()))
        return out.getvalue()

    control = f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: t <t@example.com>\nDescription: x\n"
    out = b"!<arch>\n"
    for member, content in (
        ("debian-binary", b"2.0\n"),
        ("control.tar.gz", packed({"./control": control})),
        ("data.tar.gz", packed({f"./usr/share/doc/{name}/about": "x\n"})),
    ):
        out += f"{member:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode() + content
        out += b"\n" * (len(content) % 2)
    return out


def flat_repository(name: str, version: str) -> dict[str, bytes]:
    """What apt asks of a flat repository, by path."""
    package = deb(name, version)
    described = (
        f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: t <t@example.com>\nDescription: x\n"
        f"Filename: stable/{name}.deb\nSize: {len(package)}\nSHA256: {hashlib.sha256(package).hexdigest()}\n\n"
    ).encode()
    packed = gzip.compress(described)
    sums = "".join(
        f" {hashlib.sha256(data).hexdigest()} {len(data)} {file}\n"
        for file, data in (("Packages", described), ("Packages.gz", packed))
    )
    release = f"Origin: test\nDate: Sun, 22 Nov 2026 00:00:00 UTC\nSHA256:\n{sums}".encode()
    files = {"Release": release, "Packages": described, "Packages.gz": packed, f"{name}.deb": package}
    return {f"/debian/stable/{file}": data for file, data in files.items()}


class Shop:
    """What an upstream has on its shelves: path -> (content type, content). `heard`: whole WebSocket messages."""

    def __init__(self) -> None:
        self.shelves: dict[str, tuple[str, bytes]] = {}
        self.heard: list[tuple[int, bytes]] = []
        self.uploaded: list[tuple[int, str]] = []
        self.go_on = threading.Event()

    def handler(self, upstream: Upstream) -> type[RequestHandler]:
        """Return the handler class of one upstream."""
        shop, base = self, plain_handler(upstream)

        class Handler(base):  # type: ignore[misc,valid-type] # a class that is made for each upstream
            def answer(self) -> None:
                path = self.path.partition("?")[0]
                if path in shop.shelves:
                    self.note()
                    self.say(*shop.shelves[path])
                elif path.startswith("/debian/"):
                    self.send_error(404)
                elif path.startswith("/seen/"):
                    self.say("text/plain", b"ok")
                    shop.go_on.set()
                elif path.endswith("/large"):
                    self.large()
                elif path.endswith("/upload"):
                    self.upload()
                elif path.endswith("/ticking"):
                    self.ticking()
                elif path.endswith("/packed"):
                    self.packed()
                elif self.headers.get("upgrade", "").lower() == "websocket":
                    self.converse()
                else:
                    super().answer()

            def note(self) -> None:
                upstream.requests.append(Arrived(self.command, self.path, list(self.headers.items()), b""))

            def say(self, kind: str, data: bytes, **headers: str) -> None:
                self.send_response(200)
                for name, value in {"content-type": kind, "content-length": str(len(data)), **headers}.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

            def large(self) -> None:
                self.note()
                self.send_response(200)
                self.send_header("content-length", str(LARGE))
                self.end_headers()
                block = os.urandom(BLOCK)
                for _ in range(LARGE // BLOCK):
                    self.wfile.write(block)

            def upload(self) -> None:
                self.note()
                digest, size = hashlib.sha256(), 0
                chunked = "chunked" in self.headers.get("transfer-encoding", "")
                left = int(self.headers.get("content-length", 0))
                while True:
                    want = int(self.rfile.readline(), 16) if chunked else min(BLOCK, left)
                    if want == 0:
                        break
                    data = self.rfile.read(want)
                    digest.update(data)
                    size += len(data)
                    left -= len(data)
                    if chunked:
                        self.rfile.readline()
                if chunked:
                    self.rfile.readline()
                shop.uploaded.append((size, digest.hexdigest()))
                self.say("text/plain", digest.hexdigest().encode())

            def ticking(self) -> None:
                """Each event waits until the one before was seen."""
                self.note()
                self.send_response(200)
                self.send_header("content-type", "text/event-stream")
                self.send_header("transfer-encoding", "chunked")
                self.end_headers()
                for at in range(3):
                    event = f"data: {at}\n\n".encode()
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
                    self.wfile.flush()
                    if not shop.go_on.wait(15):
                        return
                    shop.go_on.clear()
                self.wfile.write(b"0\r\n\r\n")

            def packed(self) -> None:
                """Answer in the first encoding that was asked for and that stands here."""
                self.note()
                text = json.dumps({"authorization": self.headers.get("authorization"), "text": "z" * 1500}).encode()
                for encoding in ("br", "zstd", "gzip", "deflate"):
                    found = shop.shelves.get(f"as {encoding}")
                    if encoding in self.headers.get("accept-encoding", "") and (
                        found or encoding in ("gzip", "deflate")
                    ):
                        data = (
                            found[1] if found else (gzip.compress(text) if encoding == "gzip" else zlib.compress(text))
                        )
                        self.say("application/json", data, content_encoding=encoding)
                        return
                self.say("application/json", text)

            def converse(self) -> None:
                """Echo each message, whole: compressed where that was agreed on, in two fragments where it is long."""
                self.note()
                deflate = "permessage-deflate" in self.headers.get("sec-websocket-extensions", "")
                key = self.headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
                self.send_response(101)
                self.send_header("upgrade", "websocket")
                self.send_header("connection", "Upgrade")
                self.send_header("sec-websocket-accept", base64.b64encode(hashlib.sha1(key.encode()).digest()).decode())
                if deflate:
                    self.send_header(
                        "sec-websocket-extensions",
                        "permessage-deflate; client_no_context_takeover; server_no_context_takeover",
                    )
                self.end_headers()
                while (message := self.message()) is not None:
                    kind, data, packed = message
                    shop.heard.append((kind, data))
                    if packed:
                        packer = zlib.compressobj(wbits=-15)
                        data = (packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]
                    half = len(data) // 2 if len(data) > 100 else len(data)
                    self.send(kind | (0x40 if packed else 0) | (0x80 if half == len(data) else 0), data[:half])
                    if half < len(data):
                        self.send(0x80, data[half:])
                self.close_connection = True

            def send(self, first: int, data: bytes) -> None:
                size = bytes([len(data)]) if len(data) < 126 else b"\x7f" + struct.pack("!Q", len(data))
                if 126 <= len(data) < 65536:
                    size = b"\x7e" + struct.pack("!H", len(data))
                self.wfile.write(bytes([first]) + size + data)

            def message(self) -> tuple[int, bytes, bool] | None:
                whole, kind, packed = b"", 0, False
                while True:
                    head = self.rfile.read(2)
                    if len(head) < 2 or head[0] & 0x0F == 8:
                        return None
                    size = head[1] & 0x7F
                    if size > 125:
                        size = int.from_bytes(self.rfile.read(2 if size == 126 else 8), "big")
                    mask = self.rfile.read(4)
                    data = bytes(byte ^ mask[at % 4] for at, byte in enumerate(self.rfile.read(size)))
                    if head[0] & 0x0F in (9, 10):
                        continue
                    if head[0] & 0x0F:
                        kind, packed = head[0] & 0x0F, bool(head[0] & 0x40)
                    whole += data
                    if head[0] & 0x80:
                        if packed:
                            whole = zlib.decompressobj(-15).decompress(whole + b"\0\0\xff\xff")
                        return kind, whole, packed

            do_GET = do_POST = do_PUT = do_HEAD = answer

        return Handler


def shelve_everything(shop: Shop, npm_host: str, encoded: Path) -> None:
    """Put out what the clients' tests fetch. `encoded`: a directory with `br` and `zstd`."""
    made = wheel("shopdemo", "1.2.3")
    digest = hashlib.sha256(made).hexdigest()
    page = f'<a href="/files/shopdemo-1.2.3-py3-none-any.whl#sha256={digest}">shopdemo-1.2.3-py3-none-any.whl</a>'
    shop.shelves["/simple/shopdemo/"] = ("text/html", f"<!DOCTYPE html><html><body>{page}</body></html>".encode())
    shop.shelves["/files/shopdemo-1.2.3-py3-none-any.whl"] = ("application/octet-stream", made)
    for name in ("@shop/thing", "shop-plain"):
        tarball = npm_tarball(name, "1.0.0")
        said = ("application/json", packument(npm_host, name, "1.0.0", tarball))
        shop.shelves[f"/{name}"] = shop.shelves["/" + name.replace("/", "%2f")] = said
        shop.shelves[f"/{name}/-/{name.rpartition('/')[2]}-1.0.0.tgz"] = ("application/octet-stream", tarball)
    shop.shelves["/-/npm/v1/security/advisories/bulk"] = ("application/json", b"{}")
    for path, data in flat_repository("shopdeb", "1.0").items():
        shop.shelves[path] = ("application/octet-stream", data)
    for encoding in ("br", "zstd"):
        shop.shelves[f"as {encoding}"] = ("application/json", (encoded / encoding).read_bytes())
