"""The typed vocabulary: one file per family, one frozen struct per Step; `requires()` is derived from the fields."""

from __future__ import annotations

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
from opsexec.steps.files import Link, MakeDir, ReadFile, RemoveFile, SetMode, Stat, WriteFile
from opsexec.steps.git import GitFetch, GitForward, GitScan
from opsexec.steps.images import ImageBuild, ImageImport, ImageInspect, ImageRemove
from opsexec.steps.networks import NetworkCreate, NetworkRemove
from opsexec.steps.observe import Facts, Observe
from opsexec.steps.process import Exec, Shell
from opsexec.steps.registry import STEP_TYPES, decode_step, encode_step, redact
from opsexec.steps.sandbox import SandboxRun
from opsexec.steps.schedule import ScheduleAdd, ScheduleRemove, ScheduleRun, ScheduleSwitch
from opsexec.steps.services import ServiceControl, ServiceStatus
from opsexec.steps.sync import Pull, Push
from opsexec.steps.trees import ListTree
from opsexec.steps.tty import Tty

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
    "Link",
    "ListTree",
    "MakeDir",
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
