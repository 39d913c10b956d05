"""What stands outside the bottle in the demo: an API on loopback that tells what arrived, and a listener."""

from __future__ import annotations

import http.server
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

ADDRESS = "127.0.0.1"


@dataclass
class Api:
    """An HTTPS server. `arrived`: (method, path, authorization) of every request; `ca`: PEM of its authority."""

    name: str
    ca: str = ""
    port: int = 0
    arrived: list[tuple[str, str, str]] = field(default_factory=list)


@dataclass
class Neighbour:
    """A plain listener on the host's loopback. `visits`: how many connections came."""

    port: int = 0
    visits: int = 0


@contextmanager
def api(name: str, directory: Path) -> Iterator[Api]:
    """Serve an API under this name for the time of the block."""
    ca, chain = _certificates(name)
    both = directory / "upstream.pem"
    both.touch(mode=0o600)
    both.write_text(chain)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both)
    told = Api(name, ca)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            seen = self.headers.get("authorization", "")
            told.arrived.append((self.command, self.path, seen))
            body = json.dumps({"you sent": seen}).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = answer

        def log_message(self, format: str, *args: object) -> None:
            """The list of what arrived is the log."""

    server = http.server.ThreadingHTTPServer((ADDRESS, 0), Handler)
    server.daemon_threads = True
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    told.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield told
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


@contextmanager
def neighbour() -> Iterator[Neighbour]:
    """Listen on the host's loopback for the time of the block."""
    told = Neighbour()
    with socket.create_server((ADDRESS, 0)) as server:
        told.port = server.getsockname()[1]

        def listen() -> None:
            while True:
                try:
                    made, _ = server.accept()
                except OSError:
                    return
                told.visits += 1
                made.close()

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        yield told
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def _certificates(name: str) -> tuple[str, str]:
    """Return an authority's PEM, and key and certificate that it signed for this name."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    root, leaf = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())

    def made(subject: str, key: Any, *, ca: bool) -> Any:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "the demo's authority")]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(subject if not ca else name)]), critical=False)
        )
        return builder.sign(root, hashes.SHA256())

    authority, certificate = made("the demo's authority", root, ca=True), made(name, leaf, ca=False)
    private = leaf.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pem = serialization.Encoding.PEM
    return authority.public_bytes(pem).decode(), (private + certificate.public_bytes(pem)).decode()
