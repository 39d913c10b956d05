"""What `auth.isolation` stands on: when a real podman asks an ambient credential helper, counted."""

from __future__ import annotations

import pytest

from agent.services.checks.podman import ISOLATING
from agent.services.declaration import Declaration
from agent.services.doctor import Request, examine
from opsexec.testing import FakeHost, fake_executor
from tests.conftest import require
from tests.parts import podman as podman_part
from tests.parts import registry as registry_part
from tests.unit.test_doctor_engine import ANSWERS, FACTS

LINE = "/usr/bin/podman run --name web {} localhost/web:1"


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """A podman, a registry that has its image, a home whose docker config names the counting helper."""
    for part in (podman_part, registry_part):
        why = part.missing()
        require(why is None, why or "")
    home = tmp_path_factory.mktemp("auth")
    with podman_part.podman(home) as podman, registry_part.registry(home) as host:
        podman("push", "--tls-verify=false", podman.image, f"{host}/web:1")
        helper = registry_part.CountingHelper(home, host)
        podman.env |= {"HOME": str(helper.home), "PATH": f"{helper.bin}:{podman.env['PATH']}"}
        (home / "empty.json").write_text('{"auths":{}}')
        (home / "empty").mkdir()
        (home / "empty/config.json").write_text('{"auths":{}}')
        yield podman, f"{host}/web:1", helper, home
        podman("rmi", "-f", f"{host}/web:1", check=False)


def test_the_helper_counts_a_plain_pull(scene):
    podman, image, helper, _ = scene
    podman("pull", "--tls-verify=false", image, check=False)
    assert helper.take() > 0


def test_an_authfile_alone_isolates_only_a_podman_that_is_new_enough(scene):
    podman, image, helper, home = scene
    podman("rmi", "-f", image, check=False)
    podman("pull", "--tls-verify=false", "--authfile", str(home / "empty.json"), image, check=False)
    version = tuple(map(int, podman("version", "--format", "{{.Client.Version}}").stdout.strip().split(".")[:2]))
    assert (helper.take() == 0) == (version >= ISOLATING)


def test_docker_config_isolates_every_podman(scene):
    podman, image, helper, home = scene
    podman("rmi", "-f", image, check=False)
    podman.env["DOCKER_CONFIG"] = str(home / "empty")
    try:
        podman("pull", "--tls-verify=false", "--authfile", str(home / "empty.json"), image)
    finally:
        del podman.env["DOCKER_CONFIG"]
    assert helper.take() == 0


def test_a_local_image_runs_with_the_empty_authfile_and_never_asks(scene):
    podman, _, helper, home = scene
    podman(
        "run",
        "--rm",
        "--network=none",
        "--pull=never",
        "--authfile",
        str(home / "empty.json"),
        podman.image,
        "/bin/true",
    )
    assert helper.take() == 0


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("version", "options", "environment", "verdict"),
    [
        ("4.3.1", "--authfile /e", "", "fail"), ("4.3.1", "--authfile /e --pull=never", "", "pass"),
        ("4.3.1", "--pull=always --authfile /e", "DOCKER_CONFIG=/e", "pass"), ("4.9.0", "--authfile /e", "", "pass"),
        ("4.9.0", "", "", "fail"), ("4.9.0", "--pull=missing", "", "fail"),
    ],
)  # fmt: skip
async def test_the_rule_is_what_was_counted(version, options, environment, verdict):
    unit = f"[Service]\nExecStart={LINE.format(options)}\nEnvironment={environment}\n"
    answers = {**ANSWERS, "podman version --format json": f'{{"Client":{{"Version":"{version}"}}}}'}
    files = {"/etc/systemd/system/web.service": unit, "/etc/passwd": ""}
    declared = Declaration.model_validate({"name": "web", "runtime": "podman"})
    async with fake_executor(FakeHost(files=files, answers=answers, facts=FACTS)) as ex:
        found = await examine(ex, Request("web", ("auth.isolation",), declaration=declared))
    (ruling,) = [each for each in found.findings if each.id == "auth.isolation"]
    assert ruling.verdict == verdict, ruling
