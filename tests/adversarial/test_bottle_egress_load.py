"""PX31 in a real bottle: an agent that tries to exhaust its own gate; memory is the kernel's word."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.parts.bottle_backends import BACKENDS, Name, scene
from tests.parts.bottle_running import SCRIPT_HEAD, gate_peak
from tests.parts.waiting import eventually_now

BOTTLE = """egress:
  routes:
    - {host: open.test, pipelock: {ssrf_ip_allowlist: [ADDRESS]}}
"""
SCRIPT = r"""
import time, zlib
found = {}
packer = zlib.compressobj(9, wbits=31)
bomb = b''.join(packer.compress(bytes(1 << 20)) for _ in range(128)) + packer.flush()
found['bomb'] = get('https://open.test/bomb', bomb, {'Content-Encoding': 'gzip'})[0]

def flooded(stream, first, blocks):
    try:
        stream.sendall(first)
        for _ in range(blocks):
            stream.sendall(b'a' * 65536)
        while stream.recv(65536):
            pass
    except OSError:
        pass
    stream.close()

flooded(tls(tunnel('open.test')[0], 'open.test'), b'GET / HTTP/1.1\r\nX-A: ', 64)
flooded(socket.create_connection(PROXY, 10), b'CONNECT ', 64)
chunked = b'POST / HTTP/1.1\r\nHost: open.test\r\nTransfer-Encoding: chunked\r\n\r\n1;'
flooded(tls(tunnel('open.test')[0], 'open.test'), chunked, 64)
held = [tunnel('open.test')[0] for _ in range(600)]
for _ in range(300):
    held.append(socket.create_connection(PROXY, 10))
    held[-1].sendall(b'CONNECT open.test:443 HTTP/1.1\r\nX-A: ')
found['after'] = get('https://open.test/after')[0]
open('done', 'w').close()
end = time.monotonic() + 60
while not os.path.exists('go') and time.monotonic() < end:
    time.sleep(0.02)
print(json.dumps(found))
"""


@pytest.mark.timeout(240)
@pytest.mark.parametrize("backend", BACKENDS)
def test_px31_an_agent_that_floods_its_gate_finds_it_there_still(
    request: pytest.FixtureRequest, backend: Name, tmp_path: Path
) -> None:
    (tmp_path / "upstream").mkdir()
    with scene(request, backend, tmp_path / "upstream", ("open.test",)) as stage:
        bottles = stage.bottles(tmp_path / "home", dev=BOTTLE)
        bottles.root.agent("worker", "bottle: dev\n")
        launcher = bottles.begin("worker", ["/usr/bin/python3", "-c", SCRIPT_HEAD + SCRIPT])
        try:
            (state,) = (bottles.root.path / "state").iterdir()
            done = state / "home" / "done"
            eventually_now(lambda: done.exists() or launcher.poll() is not None, within_s=120, what="it has tried")
            peak = gate_peak(state.name)
            (state / "home" / "go").touch()
            stdout, stderr = launcher.communicate(timeout=60)
        finally:
            if launcher.poll() is None:
                launcher.terminate()
                launcher.wait(timeout=60)
        found = json.loads(stdout or "{}")
        assert found == {"bomb": 403, "after": 200}, stderr
        assert 0 < peak < 256 << 20
        assert [each.path for each in stage.upstream.requests] == ["/after"]
