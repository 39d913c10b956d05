"""The doctor's steps: what they refuse, what they need, and how much they take."""

from __future__ import annotations

import pytest

from opsexec import CapabilitySet
from opsexec.errors import BadStep, CapabilityDenied, LimitExceeded, StepTimeout
from opsexec.steps import Inquire, PingSocket, Survey
from opsexec.steps.questions import QUESTIONS
from opsexec.testing import Answer, FakeHost, fake_executor

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    "fields",
    [
        {"ask": "systemd.unit"}, {"ask": "systemd.unit", "subject": "-x"}, {"ask": "systemd.unit", "subject": "a\nb"},
        {"ask": "systemd.unit", "subject": "*"}, {"ask": "systemd.running", "subject": "web"}, {"ask": "nothing"},
        {"ask": "podman.image", "subject": "--all"}, {"ask": "podman.container", "subject": "a b"},
        {"ask": "shell.syntax", "subject": "a"}, {"ask": "systemd.security", "subject": "/a"},
        {"ask": "systemd.unit", "subject": "web", "number": 3}, {"ask": "systemd.running", "connection": "m"},
        {"ask": "podman.version", "connection": "--url=tcp://x"}, {"ask": "systemd.linger", "subject": "$(id)"},
        {"ask": "launchd.job", "subject": "system/../x y"},
    ],
    ids=repr,
)  # fmt: skip
def test_a_question_that_could_mean_something_else_is_refused(fields):
    with pytest.raises(BadStep):
        Inquire(**fields)


def test_what_a_unit_said_takes_more_than_its_state():
    step = Inquire(ask="systemd.journal", subject="web.service")
    assert [str(need) for need in step.requires()] == ["service.read:web.service", "fs.read:/var/log/journal"]


def test_what_is_asked_about_is_needed_in_the_one_form_that_is_matched():
    for ask, subject, need in (
        ("shell.syntax", "/srv/../etc//web.sh", "fs.read:/etc/web.sh"),
        ("launchd.job", "system/a*@b", "service.read:system/a%2A%40b"),
        ("systemd.unit", "web@1.service", "service.read:web@1.service"),
    ):
        assert [str(each) for each in Inquire(ask=ask, subject=subject).requires()] == [need]


async def test_a_grant_on_one_service_is_none_on_another_or_on_any_program():
    async with fake_executor(FakeHost(), CapabilitySet.of("service.read:web.service")) as ex:
        for step in (
            Inquire(ask="systemd.unit", subject="other.service"),
            Inquire(ask="podman.containers"),
            Inquire(ask="shell.syntax", subject="/etc/shadow"),
            Survey(path="/etc"),
            PingSocket(path="/run/podman/podman.sock"),
        ):
            with pytest.raises(CapabilityDenied):
                await ex.run(step)


async def test_a_file_that_is_asked_about_is_read_under_the_grants_wherever_its_link_leads():
    files = {"/srv/web.sh": "#!/bin/sh\n"}
    host = FakeHost(files=files, answers={"sh -n": ""})
    async with fake_executor(host, CapabilitySet.of("fs.read:/srv/**")) as ex:
        await ex.run(Inquire(ask="shell.syntax", subject="/srv/web.sh"))
        assert host.received == [b"#!/bin/sh\n"]
    linked = FakeHost(files={"/etc/shadow": "root:hush"}, answers={"sh -n": ""})
    from opsexec.testing import FakeNode

    linked.tree.nodes["/srv"] = FakeNode("directory")
    linked.tree.nodes["/srv/web.sh"] = FakeNode("link", target="/etc/shadow")
    async with fake_executor(linked, CapabilitySet.of("fs.read:/srv/**")) as ex:
        with pytest.raises(CapabilityDenied):
            await ex.run(Inquire(ask="shell.syntax", subject="/srv/web.sh"))
    assert linked.received == []


async def test_an_answer_is_bounded_in_time_and_size(monkeypatch):
    monkeypatch.setitem(
        QUESTIONS, "systemd.running", QUESTIONS["systemd.running"]._replace(timeout_s=0.1, max_bytes=10)
    )
    async with fake_executor(FakeHost(answers={"systemctl **": Answer(delay_s=60)})) as ex:
        with pytest.raises(StepTimeout, match="no answer within"):
            await ex.run(Inquire(ask="systemd.running"))
    async with fake_executor(FakeHost(answers={"systemctl **": Answer(stdout=b"x" * 11)})) as ex:
        with pytest.raises(LimitExceeded):
            await ex.run(Inquire(ask="systemd.running"))
