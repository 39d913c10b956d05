"""The typed vocabulary: one file per family, one frozen struct per Step; `requires()` is derived from the fields.

A family is loaded when a name of it is first used: a process that runs programs needs no containers.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opsexec.steps.audit import AuditRead
    from opsexec.steps.base import Step
    from opsexec.steps.container_copies import ContainerCopyIn, ContainerCopyOut, GivenFile
    from opsexec.steps.container_shape import Attachment
    from opsexec.steps.containers import (
        ContainerCreate,
        ContainerExec,
        ContainerInspect,
        ContainerList,
        ContainerLogs,
        ContainerRemove,
        ContainerRun,
        ContainerSignal,
        ContainerStart,
        ContainerStop,
    )
    from opsexec.steps.definitions import PodmanRemove, ServiceDefinition
    from opsexec.steps.doctor import Inquire, PingSocket, Survey
    from opsexec.steps.events import Events
    from opsexec.steps.files import Link, MakeDir, MoveFile, ReadFile, RemoveFile, SetMode, Stat, WriteFile
    from opsexec.steps.git import GitFetch, GitForward, GitScan
    from opsexec.steps.images import ImageBuild, ImageImport, ImageInspect, ImageRemove
    from opsexec.steps.launchd import LaunchdControl
    from opsexec.steps.networks import NetworkCreate, NetworkRemove
    from opsexec.steps.observe import Facts, Observe
    from opsexec.steps.process import Exec, Shell
    from opsexec.steps.registry import decode_step, encode_step, redact
    from opsexec.steps.sandbox import SandboxRun
    from opsexec.steps.schedule import ScheduleAdd, ScheduleRemove, ScheduleRun, ScheduleSwitch
    from opsexec.steps.services import ServiceControl, ServiceStatus
    from opsexec.steps.sync import Pull, Push
    from opsexec.steps.trees import ListTree
    from opsexec.steps.tty import Tty
    from opsexec.steps.vocabulary import STEP_TYPES

_HOME = {
    "audit": "AuditRead",
    "base": "Step",
    "container_copies": "ContainerCopyIn ContainerCopyOut GivenFile",
    "container_shape": "Attachment",
    "containers": "ContainerCreate ContainerExec ContainerInspect ContainerList ContainerLogs "
    "ContainerRemove ContainerRun ContainerSignal ContainerStart ContainerStop",
    "definitions": "PodmanRemove ServiceDefinition",
    "doctor": "Inquire PingSocket Survey",
    "events": "Events",
    "files": "Link MakeDir MoveFile ReadFile RemoveFile SetMode Stat WriteFile",
    "git": "GitFetch GitForward GitScan",
    "images": "ImageBuild ImageImport ImageInspect ImageRemove",
    "launchd": "LaunchdControl",
    "networks": "NetworkCreate NetworkRemove",
    "observe": "Facts Observe",
    "process": "Exec Shell",
    "registry": "decode_step encode_step redact",
    "sandbox": "SandboxRun",
    "schedule": "ScheduleAdd ScheduleRemove ScheduleRun ScheduleSwitch",
    "services": "ServiceControl ServiceStatus",
    "sync": "Pull Push",
    "trees": "ListTree",
    "tty": "Tty",
    "vocabulary": "STEP_TYPES",
}
_MODULE = {name: module for module, names in _HOME.items() for name in names.split()}

__all__ = [
    "STEP_TYPES",
    "Attachment",
    "AuditRead",
    "ContainerCopyIn",
    "ContainerCopyOut",
    "ContainerCreate",
    "ContainerExec",
    "ContainerInspect",
    "ContainerList",
    "ContainerLogs",
    "ContainerRemove",
    "ContainerRun",
    "ContainerSignal",
    "ContainerStart",
    "ContainerStop",
    "Events",
    "Exec",
    "Facts",
    "GitFetch",
    "GitForward",
    "GitScan",
    "GivenFile",
    "ImageBuild",
    "ImageImport",
    "ImageInspect",
    "ImageRemove",
    "Inquire",
    "LaunchdControl",
    "Link",
    "ListTree",
    "MakeDir",
    "MoveFile",
    "NetworkCreate",
    "NetworkRemove",
    "Observe",
    "PingSocket",
    "PodmanRemove",
    "Pull",
    "Push",
    "ReadFile",
    "RemoveFile",
    "SandboxRun",
    "ScheduleAdd",
    "ScheduleRemove",
    "ScheduleRun",
    "ScheduleSwitch",
    "ServiceControl",
    "ServiceDefinition",
    "ServiceStatus",
    "SetMode",
    "Shell",
    "Stat",
    "Step",
    "Survey",
    "Tty",
    "WriteFile",
    "decode_step",
    "encode_step",
    "redact",
]


def __getattr__(name: str) -> object:
    module = _MODULE.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE})
