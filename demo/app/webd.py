"""The demo's service: serves one page on one address until it is told to stop.

webd.py ROOT ADDRESS    serve ROOT/app/site on ADDRESS, on a free port that it writes to ROOT/run/webd.url
webd.py --check ROOT    print the page that the running one serves

It reads its configuration (ROOT/etc/app.conf) once, when it starts: a new one takes a restart.
"""

from __future__ import annotations

import http.client
import os
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer


def serve(root: str, address: str) -> None:
    """Serve the page, filled in from the configuration, until a signal ends this process."""
    with open(root + "/etc/app.conf") as file:
        config = dict(line.rstrip("\n").split("=", 1) for line in file)
    with open(root + "/app/site/index.html") as file:
        page = file.read().format(**config).encode()

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, format: str, *words: object) -> None:
            """Keep no log of requests: looking at the page must change nothing on the host."""

    server = HTTPServer((address, 0), Page)
    put(root + "/run/webd.pid", str(os.getpid()))
    put(root + "/run/webd.url", f"{address}:{server.server_port}")
    server.serve_forever()


def put(path: str, text: str) -> None:
    """Make a file hold this text, whole or not at all."""
    with open(path + ".new", "w") as file:
        file.write(text + "\n")
    os.replace(path + ".new", path)


def check(root: str) -> None:
    """Print the page that is served now."""
    with open(root + "/run/webd.url") as file:
        address, port = file.read().strip().split(":")
    connection = http.client.HTTPConnection(address, int(port), timeout=5)
    connection.request("GET", "/")
    sys.stdout.write(connection.getresponse().read().decode())


if __name__ == "__main__":
    if sys.argv[1] == "--check":
        check(sys.argv[2])
    else:
        serve(sys.argv[1], sys.argv[2])
