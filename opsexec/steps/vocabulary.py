"""The whole vocabulary as one tagged union. It loads every family; who sends a step needs its own alone."""

from __future__ import annotations

from functools import cache

import msgspec

from opsexec.steps.audit import AuditRead
from opsexec.steps.base import Step
from opsexec.steps.container_copies import ContainerCopyIn, ContainerCopyOut
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
from opsexec.steps.sandbox import SandboxRun
from opsexec.steps.schedule import ScheduleAdd, ScheduleRemove, ScheduleRun, ScheduleSwitch
from opsexec.steps.services import ServiceControl, ServiceStatus
from opsexec.steps.sync import Pull, Push
from opsexec.steps.trees import ListTree
from opsexec.steps.tty import Tty

STEP_TYPES: tuple[type[Step], ...] = (
    Exec, Shell, ReadFile, Stat, WriteFile, RemoveFile, MoveFile, MakeDir, Link, SetMode,
    Push, Pull, ServiceStatus, ServiceControl, Facts, Observe, Tty, Inquire, Survey, PingSocket,
    ScheduleAdd, ScheduleRemove, ScheduleRun, ScheduleSwitch, AuditRead, Events, SandboxRun,
    GitFetch, GitScan, GitForward, ListTree, ServiceDefinition, LaunchdControl,
    PodmanRemove, ContainerRun, ContainerCreate, ContainerStart, ContainerStop, ContainerSignal, ContainerRemove,
    ContainerExec, ContainerCopyIn, ContainerCopyOut, ContainerInspect, ContainerLogs, ContainerList,
    ImageBuild, ImageImport, ImageInspect, ImageRemove, NetworkCreate, NetworkRemove,
)  # fmt: skip

AnyStep = (
    Exec | Shell | ReadFile | Stat | WriteFile | RemoveFile | MoveFile | MakeDir | Link | SetMode
    | Push | Pull | ServiceStatus | ServiceControl | Facts | Observe | Tty | Inquire | Survey | PingSocket
    | ScheduleAdd | ScheduleRemove | ScheduleRun | ScheduleSwitch | AuditRead | Events | SandboxRun
    | GitFetch | GitScan | GitForward | ListTree | ServiceDefinition | LaunchdControl
    | PodmanRemove | ContainerRun | ContainerCreate | ContainerStart | ContainerStop | ContainerSignal | ContainerRemove
    | ContainerExec | ContainerCopyIn | ContainerCopyOut | ContainerInspect | ContainerLogs | ContainerList
    | ImageBuild | ImageImport | ImageInspect | ImageRemove | NetworkCreate | NetworkRemove
)  # fmt: skip


@cache
def decoder() -> msgspec.msgpack.Decoder[Step]:
    """Return the decoder of any step; to make it costs more than a step does."""
    return msgspec.msgpack.Decoder(AnyStep)
