"""The filter of system calls: its numbers are the kernel's, and each call gets the verdict it is meant to get."""

from __future__ import annotations

import ctypes
import ctypes.util
import struct

import pytest

from opsexec.far import syscall_filter
from opsexec.far.syscall_filter import ABSENT, ARCHITECTURES, LOOKED_INTO, NEWER, PINNED, REFUSED, program
from tests.conftest import require

ALLOW, KILL = "allow", "kill"
TABLE = [
    *((each, at) for each in (REFUSED, PINNED, ABSENT, LOOKED_INTO) for at in range(len(ARCHITECTURES))),
]


def verdict(machine: str, number: int, *arguments: int, architecture: int | None = None) -> str:
    """What the filter answers: classic BPF, run as the kernel does (linux/filter.h)."""
    code = program(machine)
    assert code is not None
    words = list(struct.iter_unpack("=HBBI", code))
    at = ARCHITECTURES[machine] if architecture is None else architecture
    data = struct.pack("=IIQ6Q", number, at, 0, *(*arguments, 0, 0, 0, 0, 0, 0)[:6])
    here, loaded = 0, 0
    while True:
        how, if_so, if_not, value = words[here]
        here += 1
        if how == 0x20:
            (loaded,) = struct.unpack_from("=I", data, value)
        elif how == 0x06:
            return {0x7FFF0000: ALLOW, 0x80000000: KILL}.get(value) or f"errno {value & 0xFFFF}"
        else:
            true = {0x15: loaded == value, 0x35: loaded >= value, 0x45: bool(loaded & value)}[how]
            here += if_so if true else if_not


@pytest.mark.parametrize(("calls", "at"), TABLE)
def test_each_number_is_the_kernel_s(calls: dict[str, tuple[int, int | None]], at: int) -> None:
    """Asked of libseccomp, whose tables are the kernel's own."""
    name = ctypes.util.find_library("seccomp")
    require(name is not None, "needs libseccomp (apt-get install libseccomp2)")
    library = ctypes.CDLL(name)
    architecture = ctypes.c_uint32(list(ARCHITECTURES.values())[at])
    for call, numbers in calls.items():
        told = library.seccomp_syscall_resolve_name_arch(architecture, call.encode())
        assert numbers[at] == (told if told >= 0 else None), call


@pytest.mark.parametrize("machine", ARCHITECTURES)
class TestVerdicts:
    def number(self, machine: str, call: str) -> int:
        """A call's number."""
        found = {**REFUSED, **ABSENT, **LOOKED_INTO}[call][list(ARCHITECTURES).index(machine)]
        assert found is not None
        return found

    def test_what_opens_the_kernel_is_refused(self, machine: str) -> None:
        for call in ("mount", "bpf", "keyctl", "perf_event_open", "userfaultfd", "kexec_load", "setns", "init_module"):
            assert verdict(machine, self.number(machine, call)) == "errno 1"

    def test_what_callers_can_do_without_isn_t_there(self, machine: str) -> None:
        for call in ABSENT:
            assert verdict(machine, self.number(machine, call)) == "errno 38"
        assert verdict(machine, NEWER) == "errno 38"
        assert verdict(machine, 0x40000000 | 1) == "errno 38"

    def test_another_architecture_s_calls_end_it(self, machine: str) -> None:
        assert verdict(machine, 0, architecture=0x40000003) == KILL

    def test_a_process_is_made_but_no_namespace(self, machine: str) -> None:
        clone, unshare = self.number(machine, "clone"), self.number(machine, "unshare")
        assert verdict(machine, clone, 0x1200011) == ALLOW
        assert verdict(machine, clone, 0x3D0F00) == ALLOW  # a thread
        for flag in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
            assert verdict(machine, clone, flag | 17) == "errno 1"
            assert verdict(machine, unshare, flag) == "errno 1"
        assert verdict(machine, unshare, 0x80) == "errno 1"
        assert verdict(machine, unshare, 0x400) == ALLOW

    def test_es10_nothing_is_typed_into_a_terminal_by_any_spelling_of_the_request(self, machine: str) -> None:
        ioctl = self.number(machine, "ioctl")
        for request in (0x5412, 0x541C, 0x7_0000_5412, 0xFFFF_FFFF_0000_541C):
            assert verdict(machine, ioctl, 0, request) == "errno 1"
        assert verdict(machine, ioctl, 0, 0x5413) == ALLOW

    def test_no_driver_is_loaded_for_a_terminal(self, machine: str) -> None:
        ioctl = self.number(machine, "ioctl")
        for request in (0x5423, 0x7_0000_5423):  # TIOCSETD
            assert verdict(machine, ioctl, 0, request) == "errno 1"
        assert verdict(machine, ioctl, 0, 0x5424) == ALLOW

    def test_nobody_is_made_to_wait_for_a_file_by_a_lease_on_it(self, machine: str) -> None:
        fcntl = self.number(machine, "fcntl")
        for command in (0x400, 0x410, 0x7_0000_0400):  # F_SETLEASE, F_SETDELEG
            assert verdict(machine, fcntl, 3, command, 1) == "errno 1"
        for command in (0, 1, 2, 3, 4, 6, 7, 0x24, 0x25, 0x401, 0x406, 0x407, 0x409):
            assert verdict(machine, fcntl, 3, command) == ALLOW

    def test_the_machine_s_one_share_of_asynchronous_io_is_not_used_up(self, machine: str) -> None:
        """Of fs.aio-max-nr, 65536 by default, anybody may take all; no program of the host has any then."""
        assert verdict(machine, self.number(machine, "io_setup"), 60_000) == "errno 38"

    def test_sockets_are_of_the_families_that_programs_use(self, machine: str) -> None:
        call = self.number(machine, "socket")
        for family in (1, 2, 10):
            assert verdict(machine, call, family, 1, 0) == ALLOW
        assert verdict(machine, call, 16, 3, 0) == ALLOW
        assert verdict(machine, call, 16, 3, 15) == "errno 93"
        assert verdict(machine, call, 2, 1, 132) == "errno 93"
        assert verdict(machine, call, 2, 3, 255) == "errno 93"
        for family in (17, 38, 40, 31, 44):
            assert verdict(machine, call, family, 3, 0) == "errno 97"
        assert verdict(machine, self.number(machine, "socketpair"), 1, 1, 0) == ALLOW
        assert verdict(machine, self.number(machine, "socketpair"), 40, 1, 0) == "errno 97"

    def test_the_address_space_is_laid_out_as_usual(self, machine: str) -> None:
        call = self.number(machine, "personality")
        assert verdict(machine, call, 0xFFFFFFFF) == ALLOW
        assert verdict(machine, call, 0) == ALLOW
        assert verdict(machine, call, 0x0040000) == "errno 1"

    def test_everything_else_is_as_it_was(self, machine: str) -> None:
        named = {
            numbers[list(ARCHITECTURES).index(machine)] for numbers in {**REFUSED, **ABSENT, **LOOKED_INTO}.values()
        }
        for number in range(NEWER):
            if number not in named:
                assert verdict(machine, number) == ALLOW


def test_a_machine_that_isn_t_known_has_no_filter() -> None:
    assert program("riscv64") is None
    assert program("x86_64") is not None
    assert len(syscall_filter.program("x86_64") or b"") < 4096  # a pipe takes it whole


def test_processors_are_anybody_s_to_choose_but_where_they_are_the_bound() -> None:
    for at, machine in enumerate(ARCHITECTURES):
        plain, pinned = program(machine), program(machine, pinned=True)
        assert plain is not None
        assert pinned is not None
        number = PINNED["sched_setaffinity"][at]
        refusal = struct.pack("=HBBI", 0x15, 0, 1, number or 0) + struct.pack("=HBBI", 0x06, 0, 0, 0x00050001)
        assert (refusal in plain, refusal in pinned) == (False, True)
