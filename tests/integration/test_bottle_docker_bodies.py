"""Bodies of 100 MB through an engine's network and the gate in its bundle: both ways, whole, in bounded memory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.parts.bottle_backends import Scene
from tests.parts.bottle_running import SCRIPT_HEAD
from tests.parts.docker_stage import beside, bottles_on, engine_of, home_of, running_in
from tests.parts.docker_stage import stage as stage  # a fixture, found by name
from tests.parts.upstream_shop import LARGE, Shop
from tests.parts.waiting import eventually_now

BOUND = 256 << 20
SENDS = """
import hashlib, time
block = os.urandom(1 << 20)
with open('large', 'wb') as file:
    for _ in range(SIZE >> 20): file.write(block)
found['digest'] = hashlib.sha256(block * (SIZE >> 20)).hexdigest()
def ran(*words):
    done = subprocess.run(['curl', '-sSf', *words], capture_output=True, text=True, timeout=250)
    return done.stdout if done.returncode == 0 else done.stderr
found['up'] = ran('-T', 'large', '-H', 'Transfer-Encoding: chunked', 'https://api.test/v1/upload')
found['down'] = ran('--http2', '-o', '/dev/null', '-w', '%{size_download}', 'https://api.test/v1/large')
open('done', 'w').close()
while not os.path.exists('go'): time.sleep(0.05)
"""


@pytest.mark.timeout(600)  # of a busy machine each second has a part, and it may start an engine too
def test_a_hundred_megabytes_go_both_ways_in_bounded_memory(stage: Scene, tmp_path: Path) -> None:
    shop = Shop()
    (tmp_path / "upstream").mkdir()
    with beside(stage, tmp_path / "upstream", shop.handler) as shopping:
        bottles = bottles_on(shopping, tmp_path / "home")
        script = SCRIPT_HEAD + SENDS.replace("SIZE", str(LARGE)) + "\nprint(json.dumps(found))"
        launcher = bottles.begin("worker", ["/usr/bin/python3", "-c", script])
        try:
            (identity,) = running_in(bottles)
            home = home_of(bottles, identity)
            eventually_now(
                lambda: (home / "done").exists() or launcher.poll() is not None, within_s=400, what="all is sent"
            )
            (bundle,) = engine_of(stage).inspect(f"bottle-{identity}-bundle")
            peak = memory_peak(bundle["State"]["Pid"])
            (home / "go").touch()
            stdout, stderr = launcher.communicate(timeout=90)
        finally:
            launcher.kill()
        assert launcher.returncode == 0, stderr
        answers = json.loads(stdout)
        assert (answers["up"], answers["down"]) == (answers["digest"], str(LARGE))
        assert shop.uploaded == [(LARGE, answers["digest"])]
        assert 0 < peak < BOUND


def memory_peak(supervisor: int) -> int:
    """The most memory that any process below the bundle's supervisor had at once, in bytes."""
    found = [0]
    for child in map(int, Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()):
        lines = Path(f"/proc/{child}/status").read_text().splitlines()
        found += [int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:")]
    return max(found)
