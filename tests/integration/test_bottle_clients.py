"""Real clients in a real bottle, unharmed: what they fetch arrives whole, in bounded memory, and as it is made."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import require
from tests.parts.bottle_manifests import HomeRoot
from tests.parts.bottle_running import (
    SCRIPT_HEAD,
    TOKEN,
    Bottles,
    egress_environment,
    gate_peak,
    require_bottles,
)
from tests.parts.upstream_shop import LARGE, Shop, shelve_everything
from tests.parts.upstream_tls import Arrived, Upstream
from tests.parts.waiting import eventually_now

BOTTLE = """env:
  HELD: ${MY_HELD}
egress:
  routes:
    - {host: shop.test, pipelock: {ssrf_ip_allowlist: [127.0.0.7]}}
    - host: token.test
      path_allowlist: [/v1]
      auth: {scheme: Bearer, token_ref: API_TOKEN}
      pipelock: {ssrf_ip_allowlist: [127.0.0.7]}
"""
SCRIPT = (Path(__file__).parents[1] / "cases" / "egress_clients.txt").read_text("utf-8")
PACK = "import sys, brotli, zstandard; t = b'{\"text\": \"' + b'z' * 1500 + b'\"}'; d = sys.argv[1]; \
open(d + '/br', 'wb').write(brotli.compress(t)); open(d + '/zstd', 'wb').write(zstandard.compress(t))"

pytestmark = pytest.mark.timeout(300)


@dataclass
class Served:
    """What the clients say, and what there is outside. `memory`: the most that the gate had, in bytes."""

    answers: dict[str, Any]
    shop: Shop
    requests: list[Arrived]
    memory: int
    denied: list[dict[str, Any]]

    def text(self, name: str) -> str:
        """A program's output, once it ended well."""
        code, out, said = self.answers[name]
        assert code == 0, said + out
        return str(out)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    require_bottles()
    require("curl", "needs curl")
    encoded = tmp_path_factory.mktemp("encoded")
    subprocess.run([str(egress_environment() / "bin" / "python"), "-c", PACK, str(encoded)], check=True)
    shop = Shop()
    shelve_everything(shop, "shop.test", encoded)
    names = ("shop.test", "token.test")
    with Upstream(tmp_path_factory.mktemp("upstream"), names, handler=shop.handler) as upstream:
        root = HomeRoot(tmp_path_factory.mktemp("home") / "root")
        root.bottle("dev", BOTTLE)
        root.agent("worker", "bottle: dev\n")
        bottles = Bottles(root, upstream)
        script = SCRIPT_HEAD + SCRIPT + "\nprint(json.dumps(found))"
        launcher = bottles.begin("worker", ["/usr/bin/python3", "-c", script])
        try:
            (state,) = (root.path / "state").iterdir()
            done = state / "home" / "done"
            eventually_now(lambda: done.exists() or launcher.poll() is not None, within_s=240, what="they are served")
            memory = gate_peak(state.name)
            (state / "home" / "go").touch()
            stdout, stderr = launcher.communicate(timeout=60)
        finally:
            launcher.kill()
        assert launcher.returncode == 0, stderr
        denied = [each for each in bottles.audit(state.name) if each["decision"] == "deny"]
        yield Served(json.loads(stdout), shop, list(upstream.requests), memory, denied)


def test_pip_installs_from_an_index(served: Served) -> None:
    assert "Successfully installed shopdemo-1.2.3" in served.text("pip")
    assert served.text("pip_imports") == "1.2.3\n"


def test_npm_installs_from_a_registry_scoped_names_too(served: Served) -> None:
    require("npm", "needs npm")
    assert "added 2 packages" in served.text("npm")
    assert served.text("npm_imports") == "1.0.0 1.0.0\n"


def test_apt_reads_an_archive_and_downloads_from_it(served: Served) -> None:
    served.text("apt_update")
    served.text("apt_download")
    assert served.answers["deb"] > 0


def test_curl_speaks_both_protocols_in_all_its_ways(served: Served) -> None:
    assert json.loads(served.text("curl"))["authorization"] == "Bearer " + "*" * len(TOKEN)
    assert served.text("curl_http1") == "1.1 200"
    assert served.text("curl_http2") == "2 200"
    assert served.text("curl_head").startswith("HTTP/")
    assert served.text("curl_form")


@pytest.mark.parametrize("host", ["shop.test", "token.test"])
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd"])
def test_an_encoded_answer_is_read(served: Served, encoding: str, host: str) -> None:
    assert json.loads(served.text(f"{encoding} {host}"))["text"] == "z" * 1500


def test_a_hundred_megabytes_go_both_ways_in_bounded_memory(served: Served) -> None:
    digest = served.answers["digest"]
    assert served.text("up") == digest
    assert served.text("up_chunked") == digest
    assert served.shop.uploaded == [(LARGE, digest)] * 2
    assert served.text("down_http2") == str(LARGE)
    assert 0 < served.memory < 256 << 20


def test_events_arrive_while_the_answer_is_open(served: Served) -> None:
    assert served.answers["events"] == ["0", "1", "2"]


def test_web_sockets_carry_text_binary_fragments_and_compression(served: Served) -> None:
    said = served.answers["said"]
    assert served.answers["ws"] == [False, said]
    assert served.answers["ws_deflate"] == [True, said]
    assert [kind for kind, _ in served.shop.heard] == [1, 2, 1, 2] * 2


@pytest.mark.attack("DL20")
def test_gi57_git_over_https_is_refused_with_the_reason_and_nothing_else_is(served: Served) -> None:
    code, _, said = served.answers["git"]
    assert (code, "403" in said) == (128, True)
    assert [each["reason"] for each in served.denied] == [
        "git goes through the git gate: declare the repository in git-gate.repos"
    ]
