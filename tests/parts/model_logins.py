"""What a test of the real agents needs: their programs, an operator's login, and what arrived at the stand-ins."""

from __future__ import annotations

import base64
import json
import subprocess
import time
from pathlib import Path
from typing import Any

from tests.conftest import require
from tests.parts.bottle_running import REPOSITORY, Bottles, egress_environment
from tests.parts.upstream_tls import Arrived

PROMPT = "You are in a bottle, and this is its operator's prompt.\n"
WORD = "tell me whether you are there"
ACCOUNT = "account-1"


def installed() -> Path:
    """The agents' programs as scripts/agents.sh installs them."""
    require("npm", "needs npm, for the agents' own packages")
    done = subprocess.run(
        [str(REPOSITORY / "scripts" / "agents.sh")], capture_output=True, text=True, timeout=150, check=False
    )
    require(done.returncode == 0, f"the agents' packages can't be installed: {done.stderr.strip()[-300:]}")
    return Path(done.stdout.strip())


def a_login(now: float) -> tuple[dict[str, Any], str]:
    """A login of codex's as it stands in auth.json, and its access token."""

    def token(kind: str) -> str:
        claims = {
            "exp": int(now) + 5 * 86400,
            "kind": kind,
            "https://api.openai.com/auth": {"chatgpt_account_id": ACCOUNT, "chatgpt_plan_type": "plus"},
        }
        parts = (json.dumps(each).encode() for each in ({"alg": "RS256", "typ": "JWT"}, claims))
        return ".".join([*(base64.urlsafe_b64encode(each).rstrip(b"=").decode() for each in parts), f"REAL-{kind}"])

    access = token("access")
    tokens = {"id_token": token("id"), "access_token": access, "refresh_token": "REAL-refresh", "account_id": ACCOUNT}
    login = {"OPENAI_API_KEY": None, "auth_mode": "chatgpt", "tokens": tokens}
    return {**login, "last_refresh": "2026-01-01T00:00:00.000000Z"}, access


def log_in(home: Path) -> str:
    """Write a login of the operator's into a home of codex's; returns its access token."""
    whole, access = a_login(time.time())
    home.mkdir(exist_ok=True)
    (home / "auth.json").write_text(json.dumps(whole))
    return access


def arrived_at(bottles: Bottles, path: str) -> list[Arrived]:
    found = [each for each in bottles.upstream.requests if each.method == "POST" and each.path.startswith(path)]
    bottles.upstream.requests.clear()
    return found


def said_in(asked: Arrived) -> str:
    """A request's body; codex packs it with Zstandard, which the egress gate's environment can read."""
    if asked.header("content-encoding") != ["zstd"]:
        return asked.body.decode()
    unpack = "import sys, zstandard; zstandard.ZstdDecompressor().copy_stream(sys.stdin.buffer, sys.stdout.buffer)"
    python = str(egress_environment() / "bin" / "python")
    done = subprocess.run([python, "-c", unpack], input=asked.body, capture_output=True, timeout=20, check=True)
    return done.stdout.decode()
