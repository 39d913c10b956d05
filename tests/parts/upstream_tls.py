"""A TLS server on loopback that stands for an API: its own authority, and a log of every request that arrived."""

from __future__ import annotations

import base64
import gzip
import hashlib
import http.server
import json
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any


def make_certificate(directory: Path, names: tuple[str, ...]) -> tuple[Path, Path, Path]:
    """Write an authority and a certificate for these names; returns (authority, certificate, key)."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    now = datetime.now(UTC)

    def build(subject: str, issuer: str, key: Any, signer: Any, *, ca: bool) -> Any:
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        if not ca:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(n) for n in names]), False)
        return builder.sign(signer, hashes.SHA256())

    root, leaf = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority = build("test upstream CA", "test upstream CA", root, root, ca=True)
    certificate = build(names[0], "test upstream CA", leaf, root, ca=False)
    paths = directory / "ca.pem", directory / "cert.pem", directory / "key.pem"
    paths[0].write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[2].write_bytes(
        leaf.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


RequestHandler = http.server.BaseHTTPRequestHandler


@dataclass(frozen=True)
class Arrived:
    """One request as it arrived."""

    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> list[str]:
        """Every value of a header."""
        return [value for key, value in self.headers if key.lower() == name.lower()]


@dataclass
class Upstream:
    """The server. `connections`: how many were accepted, also those that sent nothing."""

    directory: Path
    names: tuple[str, ...] = ("api.test",)
    address: str = "127.0.0.7"
    requests: list[Arrived] = field(default_factory=list)
    messages: list[bytes] = field(default_factory=list)
    seen: threading.Event = field(default_factory=threading.Event)
    connections: int = 0
    port: int = 0
    handler: Callable[[Upstream], type[RequestHandler]] | None = None

    @property
    def ca(self) -> Path:
        """The authority's certificate."""
        return self.directory / "ca.pem"

    def __enter__(self) -> Upstream:
        _, certificate, key = make_certificate(self.directory, self.names)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        upstream = self

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def get_request(self) -> tuple[Any, Any]:
                connection, address = self.socket.accept()
                upstream.connections += 1
                return context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False), address

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A caller that breaks off is what some tests are about."""

        self._server = Server((self.address, self.port), (self.handler or plain_handler)(self))
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


def body_of(request: RequestHandler) -> bytes:
    """Read a request's body, chunked or with a length."""
    if "chunked" in request.headers.get("transfer-encoding", ""):
        data = b""
        while size := int(request.rfile.readline(), 16):
            data += request.rfile.read(size)
            request.rfile.readline()
        request.rfile.readline()
        return data
    return request.rfile.read(int(request.headers.get("content-length", 0)))


def plain_handler(upstream: Upstream) -> type[RequestHandler]:
    """Return a handler that says what arrived, streams events, and echoes WebSocket messages."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # head and body are two writes, and the second would wait for an ACK

        def answer(self) -> None:
            if self.headers.get("upgrade", "").lower() == "websocket":
                self.websocket()
                return
            if self.path.endswith("/events"):
                self.events()
                return
            body = body_of(self)
            upstream.requests.append(Arrived(self.command, self.path, list(self.headers.items()), body))
            if self.path.endswith("/seen"):
                upstream.seen.set()
            said = {"path": self.path, "authorization": self.headers.get("authorization", ""), "bytes": len(body)}
            data = json.dumps(said).encode()
            self.send_response(200)
            if self.path.endswith("/gzip"):
                data = gzip.compress(data)
                self.send_header("content-encoding", "gzip")
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_TRACE = answer

        def events(self) -> None:
            """Send one event, and the next only after the caller has told elsewhere that it has seen the first."""
            upstream.requests.append(Arrived(self.command, self.path, list(self.headers.items()), b""))
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            for text in ("first", self.headers.get("authorization", "none"), "last"):
                data = f"data: {text}\n\n".encode()
                # In pieces, so that a token is cut in two.
                for piece in (data[:14], data[14:]):
                    if piece:
                        self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                        self.wfile.flush()
                if text == "first":
                    upstream.seen.wait(10)
            self.wfile.write(b"0\r\n\r\n")

        def websocket(self) -> None:
            """Echo each message behind the caller's authorization, and keep what arrived."""
            upstream.requests.append(Arrived(self.command, self.path, list(self.headers.items()), b""))
            key = self.headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
            self.send_response(101)
            self.send_header("upgrade", "websocket")
            self.send_header("connection", "Upgrade")
            self.send_header("sec-websocket-accept", base64.b64encode(hashlib.sha1(key.encode()).digest()).decode())
            proof = self.headers.get("authorization", "none").encode()
            if self.path.endswith("/echo"):
                self.send_header("x-echo", proof.decode())
                self.send_header(f"x-echo-{proof.decode().partition(' ')[2]}", "its name")
            self.end_headers()
            while (message := self.frame()) is not None:
                upstream.messages.append(message)
                said = proof + b" " + message
                frames = {
                    b"ping": [(0x89, said)],
                    b"pong": [(0x8A, said)],
                    b"goodbye": [(0x88, b"\x03\xe8" + said)],
                    b"halves": [(0x81, proof[:16]), (0x89, proof[16:])],
                }
                for first, data in frames.get(message, [(0x81, said)]):
                    self.wfile.write(bytes([first, len(data)]) + data)
            self.close_connection = True

        def frame(self) -> bytes | None:
            """Read one short, masked message; None at the end."""
            first = self.rfile.read(2)
            if len(first) < 2 or first[0] & 0x0F == 8:
                return None
            size = first[1] & 0x7F
            if size == 126:
                size = int.from_bytes(self.rfile.read(2), "big")
            mask = self.rfile.read(4)
            return bytes(byte ^ mask[at % 4] for at, byte in enumerate(self.rfile.read(size)))

        def log_message(self, format: str, *args: object) -> None:
            """The list of requests is the log."""

    return Handler
