"""DN8: names that lead inside, told by a DNS server of the test's own in a namespace that nothing leaves."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import require
from tests.parts.egress_gate import EgressGate, route
from tests.parts.upstream_tls import make_certificate

PUBLIC = "192.31.196.10"  # of a block that IANA set apart (RFC 7535); here it is on the namespace's own loopback
ANSWERS = {
    "once.test": [["10.0.0.1"]],
    "later.test": [[PUBLIC], ["127.0.0.1"]],
    "beside.test": [[PUBLIC, "169.254.169.254"]],
    "shared.test": [["100.64.0.7"]],
    "public.test": [[PUBLIC]],
}

pytestmark = pytest.mark.attack(backend="alone")


def test_DN8_a_name_that_leads_inside_is_refused_at_once_later_and_beside_a_public_address(tmp_path: Path) -> None:
    probe = ["unshare", "-rmn", "ip", "link", "set", "lo", "up"]
    able = subprocess.run(probe, check=False, capture_output=True, timeout=20).returncode == 0
    require(able, "needs network and mount namespaces (unshare -rmn) and iproute2")
    resolv = tmp_path / "resolv.conf"
    resolv.write_text("nameserver 127.0.0.1\noptions timeout:2 attempts:1\n")
    ca, _, _ = make_certificate(tmp_path, tuple(ANSWERS))
    within = ["unshare", "-rmn", sys.executable, "-m", "tests.parts.rebinding", json.dumps(ANSWERS), str(resolv)]
    routes = [route(name, private=[]) for name in ANSWERS]
    with EgressGate(tmp_path, routes, {}, ca, within=within) as gate:
        statuses = {name: gate.ask(name, "/")[0] for name in ("once.test", "beside.test", "shared.test")}
        first, second = gate.ask("later.test", "/")[1], gate.ask("later.test", "/")[1]
        public = gate.ask("public.test", "/")[1]
    asked = [line.split()[1] for line in gate.other if line.startswith("asked ")]  # its end has been read
    assert statuses == dict.fromkeys(statuses, 502)
    assert b"isn't public" not in first + public  # checked, and dialed in vain
    assert b"public" in second
    refused = [each["host"] for each in gate.events("egress", reason="the name leads to an address that isn't public")]
    assert refused == ["once.test", "beside.test", "shared.test", "later.test"]
    assert sorted(asked) == sorted([*ANSWERS, "later.test"])  # one look-up a dial
