"""The profile of system calls for an engine: what it lets through, asked of the program that libseccomp makes of it."""

from __future__ import annotations

import json
import struct
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsexec.engine.answers import Info
from opsexec.errors import BadStep
from opsexec.far import syscall_filter
from opsexec.far.syscall_filter import ABSENT, ARCHITECTURES, CLONE_NAMESPACES, LOOKED_INTO, NEWER, REFUSED
from opsexec.handlers import container_syscalls
from opsexec.handlers.container_config import config_of
from opsexec.handlers.container_syscalls import ALLOWED, NEWER_KINDS, profile, taken_by
from opsexec.steps import ContainerCreate, ContainerRun
from tests.parts.seccomp_rules import ALLOW, KILL, compiled, number, numbers, verdict

RULES: list[dict[str, Any]] = json.loads(profile())["syscalls"]
CODE = {machine: compiled(RULES, architecture) for machine, architecture in ARCHITECTURES.items()}
EPERM, ENOSYS = "errno 1", "errno 38"


def asked(machine: str, call: str, *arguments: int) -> str:
    at = number(ARCHITECTURES[machine], call)
    assert at is not None, call
    return verdict(CODE[machine], ARCHITECTURES[machine], at, *arguments)


def sandboxed(machine: str, call: int, *arguments: int) -> str:
    """What a sandbox's filter answers."""
    code = syscall_filter.program(machine)
    assert code is not None
    return verdict(list(struct.iter_unpack("=HBBI", code)), ARCHITECTURES[machine], call, *arguments)


WORDS = (
    0, 1, 2, 3, 6, 8, 10, 15, 16, 17, 31, 38, 40, 132, 255, 0x400, 0x410, 0x5412, 0x541C, 0x5413, 0x5423, 0x20000,
    0x20008, 0x40000, 0x10000000, 0x7E020080, CLONE_NAMESPACES, 0x3D0F00, 0x1200011, 0xFFFFFFFF, 0x7_0000_5412,
    1 << 32 | 40,
)  # fmt: skip


@pytest.mark.parametrize("machine", ARCHITECTURES)
class TestVerdicts:
    def test_nothing_is_allowed_that_a_sandbox_refuses(self, machine: str) -> None:
        for at, call in {**numbers(ARCHITECTURES[machine]), NEWER: "newer", NEWER + 100: "newest"}.items():
            for first in WORDS if call in LOOKED_INTO else (0,):
                for words in ((first,), (0, first), *((first, 1, kind) for kind in (0, 1, 6, 15, 17, 132))):
                    if verdict(CODE[machine], ARCHITECTURES[machine], at, *words) == ALLOW:
                        assert sandboxed(machine, at, *words) == ALLOW, (call, words)

    def test_what_opens_the_kernel_is_refused(self, machine: str) -> None:
        for call in REFUSED:
            at = number(ARCHITECTURES[machine], call)
            if at is not None:
                assert verdict(CODE[machine], ARCHITECTURES[machine], at) == EPERM, call
        for call in ("unshare", "process_vm_readv", "process_vm_writev", "mbind", "kcmp", "pidfd_getfd", "sethostname"):
            assert asked(machine, call) == EPERM, call

    def test_what_callers_can_do_without_isn_t_there(self, machine: str) -> None:
        for call in ABSENT:
            assert asked(machine, call) == ENOSYS
        for call in NEWER_KINDS.split():
            at = number(ARCHITECTURES[machine], call)  # not each of them is known to every libseccomp
            assert at is None or verdict(CODE[machine], ARCHITECTURES[machine], at) == ENOSYS

    def test_another_architecture_s_calls_end_it(self, machine: str) -> None:
        for other in (0x40000003, 0x40000028, *(set(ARCHITECTURES.values()) - {ARCHITECTURES[machine]})):
            assert verdict(CODE[machine], other, 1) == KILL
        assert machine != "x86_64" or verdict(CODE[machine], ARCHITECTURES[machine], 0x40000000 | 41, 40, 1) != ALLOW

    def test_a_process_is_made_but_no_namespace(self, machine: str) -> None:
        assert asked(machine, "clone", 0x1200011) == ALLOW
        assert asked(machine, "clone", 0x3D0F00) == ALLOW  # a thread
        for flag in (1 << bit for bit in range(32) if CLONE_NAMESPACES >> bit & 1):
            assert asked(machine, "clone", flag | 17) == EPERM
            assert asked(machine, "clone", 1 << 32 | flag | 17) == EPERM

    def test_sockets_are_of_the_families_that_programs_use(self, machine: str) -> None:
        for family in range(64):
            kinds = {kind for kind in (0, 1, 6, 15, 17, 132, 255) if asked(machine, "socket", family, 1, kind) == ALLOW}
            assert kinds == {
                1: {0, 1, 6, 15, 17, 132, 255}, 2: {0, 6, 17}, 10: {0, 6, 17}, 16: {0},
            }.get(family, set()), family  # fmt: skip
            assert (asked(machine, "socketpair", family, 1, 0) == ALLOW) == (family == 1)
        assert asked(machine, "socket", 1 << 32 | 40, 1, 0) == EPERM

    def test_es10_nothing_is_typed_into_a_terminal_by_any_spelling_of_the_request(self, machine: str) -> None:
        for request in (0x5412, 0x541C, 0x7_0000_5412, 0xFFFF_FFFF_0000_541C):
            assert asked(machine, "ioctl", 0, request) == EPERM
        for request in (0, 0x5401, 0x5410, 0x5413, 0x541B, 0x541D, 0x5441, 0x8004_5430, 0xFFFF_FFFF_8004_5430):
            assert asked(machine, "ioctl", 0, request) == ALLOW

    def test_what_holds_up_or_uses_up_the_machine_is_refused(self, machine: str) -> None:
        for command in (0x400, 0x410, 0x7_0000_0400):  # F_SETLEASE, F_SETDELEG
            assert asked(machine, "fcntl", 3, command) == EPERM
        assert asked(machine, "ioctl", 0, 0x5423) == EPERM  # TIOCSETD
        assert asked(machine, "io_setup", 60_000) == ENOSYS

    def test_the_address_space_is_laid_out_as_usual(self, machine: str) -> None:
        for allowed in (0, 8, 0x20000, 0x20008, 0xFFFFFFFF):
            assert asked(machine, "personality", allowed) == ALLOW
        assert asked(machine, "personality", 0x0040000) == EPERM


@given(st.integers(0, (1 << 64) - 1), st.sampled_from((0x5412, 0x541C, 0x5423, 0x400, 0x410)), st.integers(0, 31))
def test_every_other_request_to_a_device_or_a_file_is_a_program_s_own_business(word: int, near: int, bit: int) -> None:
    for request in (word, near ^ 1 << bit, (word >> 32 << 32) | near):
        number = request & 0xFFFFFFFF
        assert asked("x86_64", "ioctl", 0, request) == (EPERM if number in syscall_filter.TERMINALS else ALLOW)
        held = number in syscall_filter.LEASES or number > 0x410  # nothing has those numbers yet
        assert asked("x86_64", "fcntl", 0, request) == (EPERM if held else ALLOW)


def test_every_command_about_a_file_is_there_but_leases() -> None:
    for command in (*range(64), *range(0x3F0, 0x411)):
        assert (asked("x86_64", "fcntl", 3, command) == ALLOW) == (command not in syscall_filter.LEASES), command


def test_every_word_of_the_list_is_a_call_and_stands_once() -> None:
    named = [*ALLOWED.split(), "ptrace", "clone", "personality", "socketpair", "socket", "ioctl", "fcntl"]
    assert len(set(named)) == len(named)
    assert not set(named) & {*REFUSED, *ABSENT, *NEWER_KINDS.split()}
    for call in named:
        assert any(number(architecture, call) is not None for architecture in ARCHITECTURES.values()), call


def info(**fields: Any) -> Info:
    told = {"Architecture": "x86_64", "SecurityOptions": ["name=apparmor", "name=seccomp,profile=default"]}
    return msgspec.convert(told | fields, Info)


@pytest.mark.parametrize("own", ["default", "builtin", "unconfined"])
def test_an_engine_s_default_is_replaced(own: str) -> None:
    assert taken_by(info(SecurityOptions=[f"name=seccomp,profile={own}"]))
    assert taken_by(info(Architecture="aarch64"))


@pytest.mark.parametrize(
    "fields",
    [
        {"SecurityOptions": ["name=seccomp,profile=/etc/docker/tighter.json"]}, {"SecurityOptions": ["name=apparmor"]},
        {"SecurityOptions": None}, {"Architecture": "s390x"}, {"Architecture": ""}, {"BuildahVersion": "1.33.7"},
    ],
    ids=("the operator's own", "no seccomp", "nothing told", "unknown calls", "no architecture", "podman"),
)  # fmt: skip
def test_what_can_t_take_it_or_has_one_of_its_operator_s_keeps_its_own(fields: dict[str, Any]) -> None:
    assert not taken_by(info(**fields))


def test_a_step_says_which_filter_its_container_has() -> None:
    named: dict[str, Any] = {"name": "web", "image": "a:1", "labels": {"a.b": "c"}}
    plain, tight = (ContainerCreate(**named, syscalls=each) for each in ("engine", "tight"))
    options = [config_of(step, {}, own_labels={})["HostConfig"]["SecurityOpt"] for step in (plain, tight)]
    assert options == [
        ["no-new-privileges:true"],
        ["no-new-privileges:true", f"seccomp={container_syscalls.profile()}"],
    ]
    for wrong in ("unconfined", "", "none", '{"defaultAction":"SCMP_ACT_ALLOW"}'):
        with pytest.raises(BadStep, match="no filter"):
            ContainerRun(**{**named, "syscalls": wrong})
