"""What a scripted agent does with its supervise server, and how a test goes on talking to it.

This file's text goes in whole: the standard library alone. Each `ask-N.py` that appears in the home is run, and what
it leaves in `found` is written to `answer-N.json`.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
import traceback
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

URL = os.environ.get("BOTTLE_SUPERVISE", "http://127.0.0.1:8879/mcp").rpartition("/")[0]
DOOR = (URL.rpartition("/")[2].partition(":")[0], 8879)
HOME = Path(os.environ.get("HOME", "/"))


def post(body: bytes, headers: dict[str, str] | None = None, path: str = "/mcp", method: str = "POST") -> list[Any]:
    """One request to the server as it is: its status, and what it said."""
    given = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream", **(headers or {})}
    request = urllib.request.Request(f"{URL}{path}", body, given, method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=60) as answer:
            return [answer.status, answer.read().decode()]
    except urllib.error.HTTPError as error:
        return [error.code, error.read().decode()]
    except OSError as error:
        return [0, str(error)]


def rpc(method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
    """One JSON-RPC request; the whole answer."""
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params or {}})
    found: dict[str, Any] = json.loads(post(body.encode())[1])
    return found


def tool(name: str, **arguments: Any) -> dict[str, Any]:
    """One call of a tool; what it said."""
    answer = rpc("tools/call", {"name": name, "arguments": arguments})
    found: dict[str, Any] = answer["result"]["structuredContent"] if "result" in answer else answer["error"]
    return found


def status(url: str) -> int:
    """How a request through egress ends; 0 where no tunnel was opened."""
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def raw(data: bytes, more: int = 0) -> str:
    """Bytes to the server, then `more` kilobytes in chunks for as long as it takes them; what it said."""
    with socket.create_connection(DOOR, 10) as made:
        made.settimeout(20)
        said = b""
        try:
            made.sendall(data)
            for _ in range(more):
                made.sendall(b"400\r\n" + b"x" * 1024 + b"\r\n")
        except OSError:
            said += b"!"
        try:
            while block := made.recv(65536):
                said += block
                if b"\r\n\r\n" in said and not more:
                    break
        except OSError:
            said += b"!"
    return said.decode("latin-1")


def side_by_side(works: list[Any]) -> list[Any]:
    """Do them at once; what each gave."""
    found: list[Any] = [None] * len(works)

    def one(at: int) -> None:
        found[at] = works[at]()

    threads = [threading.Thread(target=one, args=(at,)) for at in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def serve_asks() -> None:
    """Do what is asked, one after the other, for ever."""
    done: set[str] = set()
    while True:
        for path in sorted(HOME.glob("ask-*.py")):
            if path.name in done:
                continue
            done.add(path.name)
            answer = path.with_name(path.name.replace("ask", "answer").replace(".py", ".json"))
            if answer.exists():  # of an earlier life of this bottle
                continue
            scope: dict[str, Any] = {**globals(), "found": {}}
            try:
                exec(compile(path.read_text(), path.name, "exec"), scope)  # noqa: S102 -- the test's own words
                said = {"found": scope["found"]}
            except Exception:  # noqa: BLE001 -- whatever went wrong inside is the test's to see
                said = {"error": traceback.format_exc()}
            part = answer.with_suffix(".part")
            part.write_text(json.dumps(said))
            part.rename(answer)
        time.sleep(0.02)


if __name__ == "__main__" and sys.argv[-1] == "serve":
    serve_asks()
