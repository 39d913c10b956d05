"""An engine's rules about system calls: compiled by libseccomp as a runtime does it, and asked for verdicts."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from tests.conftest import require

ALLOW, KILL = "allow", "kill"
EPERM = 1
_ACTIONS = {"SCMP_ACT_ALLOW": 0x7FFF0000, "SCMP_ACT_ERRNO": 0x00050000}
_UNKNOWN = -1
_COMPARISONS = {"SCMP_CMP_NE": 1, "SCMP_CMP_LT": 2, "SCMP_CMP_LE": 3, "SCMP_CMP_EQ": 4, "SCMP_CMP_GE": 5,
                "SCMP_CMP_GT": 6, "SCMP_CMP_MASKED_EQ": 7}  # fmt: skip


class _Comparison(ctypes.Structure):
    """`struct scmp_arg_cmp` of seccomp.h."""

    _fields_ = (
        ("arg", ctypes.c_uint), ("op", ctypes.c_int), ("datum_a", ctypes.c_uint64), ("datum_b", ctypes.c_uint64),
    )  # fmt: skip


def libseccomp() -> ctypes.CDLL:
    """The library; skips, or fails under REQUIRE_ALL, where it isn't."""
    name = ctypes.util.find_library("seccomp")
    require(name is not None, "needs libseccomp (apt-get install libseccomp2)")
    library = ctypes.CDLL(name)
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_syscall_resolve_num_arch.restype = ctypes.c_void_p
    return library


def number(architecture: int, call: str) -> int | None:
    """A call's number (AUDIT_ARCH_*); None where the architecture hasn't got it."""
    found: int = libseccomp().seccomp_syscall_resolve_name_arch(ctypes.c_uint32(architecture), call.encode())
    return found if found >= 0 else None


def numbers(architecture: int) -> dict[int, str]:
    """All of an architecture's calls that the library knows."""
    library, found = libseccomp(), {}
    for each in range(600):
        name = library.seccomp_syscall_resolve_num_arch(ctypes.c_uint32(architecture), each)
        if name:
            found[each] = (ctypes.string_at(name) or b"").decode()
    return found


def compiled(rules: Sequence[Mapping[str, Any]], architecture: int) -> list[tuple[int, int, int, int]]:
    """The program that these rules are, for one architecture alone; what no rule allows is refused with EPERM."""
    library = libseccomp()
    made = ctypes.c_void_p(library.seccomp_init(_ACTIONS["SCMP_ACT_ERRNO"] | EPERM))
    native = library.seccomp_arch_native()
    if native & 0xFFFFFFFF != architecture:
        assert library.seccomp_arch_add(made, ctypes.c_uint32(architecture)) == 0
        assert library.seccomp_arch_remove(made, ctypes.c_uint32(native)) == 0
    for rule in rules:
        action = _ACTIONS[rule["action"]]
        if rule["action"] == "SCMP_ACT_ERRNO":
            action |= rule.get("errnoRet", EPERM)
        for call in rule["names"]:
            at = library.seccomp_syscall_resolve_name(call.encode())  # its own architecture's, which it translates
            if at == _UNKNOWN or action == _ACTIONS["SCMP_ACT_ERRNO"] | EPERM:
                continue
            given = [
                _Comparison(each["index"], _COMPARISONS[each["op"]], each["value"], each.get("valueTwo", 0))
                for each in rule.get("args") or ()
            ]
            array = (_Comparison * len(given))(*given)
            said = library.seccomp_rule_add_array(made, ctypes.c_uint32(action), at, len(given), array)
            assert said == 0, (call, said)
    read, write = os.pipe()
    with open(read, "rb") as file:
        with open(write, "wb") as out:
            # A pipe takes 64 KiB, and a program of the kernel's has 4096 instructions of 8 bytes at most.
            assert library.seccomp_export_bpf(made, out.fileno()) == 0
        code = file.read()
    library.seccomp_release(made)
    return list(struct.iter_unpack("=HBBI", code))


def verdict(code: Sequence[tuple[int, int, int, int]], architecture: int, call: int, *arguments: int) -> str:
    """What a program answers: classic BPF, as the kernel runs it (linux/filter.h, linux/seccomp.h)."""
    data = struct.pack("=IIQ6Q", call, architecture, 0, *(*arguments, 0, 0, 0, 0, 0, 0)[:6])
    here, loaded = 0, 0
    while True:
        how, if_so, if_not, value = code[here]
        here += 1
        if how == 0x20:
            (loaded,) = struct.unpack_from("=I", data, value)
        elif how == 0x54:
            loaded &= value
        elif how == 0x05:
            here += value
        elif how == 0x06:
            return {0x7FFF0000: ALLOW, 0x80000000: KILL, 0: KILL}.get(value) or f"errno {value & 0xFFFF}"
        else:
            true = {0x15: loaded == value, 0x25: loaded > value, 0x35: loaded >= value, 0x45: bool(loaded & value)}[how]
            here += if_so if true else if_not
