"""The doctor's acceptance points that a real podman and registry prove; those of a booted machine stand in
test_doctor_changes.py: 1 (a runtime that is down), 5 (quarantine) and 6 (a runaway)."""

from __future__ import annotations

import os
import subprocess

import pytest

from agent.services.artifact import Places, auth_files
from agent.services.declaration import Declaration
from agent.services.doctor import Request, examine
from agent.services.plist_lint import lint_plist
from agent.services.wrapper_script import make_wrapper
from opsexec.testing import FakeHost, fake_executor
from tests.conftest import require
from tests.parts import podman as podman_part
from tests.parts import registry as registry_part
from tests.unit.test_doctor_engine import ANSWERS, FACTS

ABSENT = "LoadState=not-found\nActiveState=inactive\n"
HEAD = b'<?xml version="1.0"?><plist version="1.0"><dict><key>Label</key><string>org.example.web</string>'
PROGRAM = b"<key>ProgramArguments</key><array><string>/bin/web</string></array>"


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """A podman, a registry that has its image, a home whose docker config names the counting helper."""
    for part in (podman_part, registry_part):
        why = part.missing()
        require(why is None, why or "")
    home = tmp_path_factory.mktemp("acceptance")
    with podman_part.podman(home) as podman, registry_part.registry(home) as host:
        image = f"{host}/web:1"
        podman("push", "--tls-verify=false", podman.image, image)
        helper = registry_part.CountingHelper(home, host)
        (home / "registries.conf").write_text(f'[[registry]]\nlocation = "{host}"\ninsecure = true\n')
        podman.env |= {"HOME": str(helper.home), "PATH": f"{helper.bin}:{podman.env['PATH']}",
                       "CONTAINERS_REGISTRIES_CONF": str(home / "registries.conf")}  # fmt: skip
        yield podman, image, helper, home
        podman("rmi", "-f", image, check=False)


def wrapped(scene, name: str, verb: str, **more) -> subprocess.CompletedProcess[str]:
    """Run a generated wrapper, with the helper on its PATH too."""
    podman, _, helper, home = scene
    tables = {"name": name, "runtime": "podman", "auth": {"mode": "empty-authfile"}, **more}
    declared = Declaration.model_validate(tables)
    places = Places(str(home), str(home / "wrappers"), str(home / name), str(home))
    for each in (make_wrapper(declared, places), *auth_files(declared, places)):
        os.makedirs(os.path.dirname(each.path), exist_ok=True)
        data = each.data.replace(b"export PATH=", f"export PATH={helper.bin}:".encode(), 1)
        with open(each.path, "wb") as out:
            out.write(data)
        os.chmod(each.path, int(each.mode, 8))
    argv = [places.wrapper(name), verb]
    return subprocess.run(argv, env=podman.env, capture_output=True, text=True, timeout=60, check=False)


def test_acceptance_2_an_ambient_credential_helper_is_called_0_times_under_the_generated_wrapper(scene):
    podman, image, helper, _ = scene
    podman("rmi", "-f", image, check=False)
    podman("pull", image, check=False)
    assert helper.take() > 0, "the helper would be called, had nothing kept it out"
    podman("rmi", "-f", image, check=False)
    # The worst a declaration can ask for: a registry's image, pulled at each start.
    done = wrapped(scene, "pulls", "run", image=image, command=["/bin/true"], podman={"pull": "always"})
    assert done.returncode == 0, done.stderr
    assert helper.take() == 0


def test_acceptance_3_a_local_image_runs_with_the_empty_authfile(scene):
    podman, _, helper, _ = scene
    for verb in ("ready", "run", "stop", "clean"):
        done = wrapped(scene, "local", verb, image=podman.image, command=["/bin/true"])
        assert done.returncode == 0, (verb, done.stderr)
    assert helper.take() == 0


def test_an_image_that_is_not_here_is_not_started_and_never_pulled(scene):
    podman, image, helper, _ = scene
    podman("rmi", "-f", image, check=False)
    assert wrapped(scene, "absent", "ready", image=image).returncode == 1
    assert wrapped(scene, "absent", "run", image=image).returncode != 0
    assert helper.take() == 0
    assert podman("image", "exists", image, check=False).returncode == 1


def test_a_container_of_somebody_else_is_left_alone(scene):
    podman, _, _, _ = scene
    podman.run("somebodys")
    try:
        for verb in ("run", "stop", "clean"):
            wrapped(scene, "somebodys", verb, image=podman.image, command=["/bin/true"])
        said = podman("container", "inspect", "--format", "{{.State.Status}}", "somebodys").stdout
        assert said.strip() == "running"
    finally:
        podman.remove("somebodys")


def test_a_second_start_takes_the_place_of_the_services_own_leftover(scene):
    podman, _, _, _ = scene
    podman.run("again", options=("--label", "ops-agent.service=again"))
    done = wrapped(scene, "again", "run", image=podman.image, command=["/bin/true"])
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "keep",
    [b"<key>KeepAlive</key><true/>", b"<key>KeepAlive</key>\n  <true/>",
     b"<key>KeepAlive</key><dict><key>SuccessfulExit</key><true/></dict>"],
)  # fmt: skip
def test_acceptance_4_keepalive_is_flagged_also_across_two_lines(keep):
    found = lint_plist(HEAD + PROGRAM + keep + b"</dict></plist>", "org.example.web.plist")
    assert any(each.verdict == "fail" and "without end" in each.summary for each in found)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("check", "text"),
    [
        ("lint.restart-unbounded", "Restart=always"),
        ("lint.restart-unbounded", "Restart=on-failure\nStartLimitIntervalSec=1h\nRestartSec=6"),
        ("lint.restart-unbounded", "Restart=on-failure\n[Unit]\nStartLimitIntervalSec=0"),
        ("lint.restart-unbounded", "Restart=on-failure\n[Unit]\nStartLimitBurst=0"),
        ("lint.restart-unbounded", "Restart=on-abnormal\nRestartSec=10\n[Unit]\nStartLimitIntervalSec=10"),
        ("lint.log-tmp", "StandardOutput=append:/tmp/web.log"),
        ("lint.log-tmp", "StandardError=file:/var/tmp/web.log"),
        ("lint.remote-image", "ExecStart=\nExecStart=/usr/bin/podman run docker.io/library/busybox"),
        ("lint.raw-runtime-run", "ExecStart=\nExecStart=/usr/bin/podman run localhost/web:1"),
        ("lint.raw-runtime-run", "ExecStart=\nExecStart=/bin/sh -c 'exec podman run localhost/web:1'"),
    ],
)
async def test_acceptance_4_what_runs_away_or_leaks_is_flagged(check, text):
    unit = f"[Service]\nExecStart=/usr/bin/web\n{text}\n"
    answers = {
        **ANSWERS,
        "systemctl --no-pager --no-ask-password show **": ABSENT,
    }
    host = FakeHost(files={"/etc/systemd/system/web.service": unit, "/usr/bin/web": "x"}, answers=answers, facts=FACTS)
    async with fake_executor(host) as ex:
        found = await examine(ex, Request("web", (check,)))
    assert [each.verdict for each in found.findings if each.id == check] == ["fail"], found.findings
