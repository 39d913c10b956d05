"""What a runbook may say about containers, images and networks: the tables of fields.py for that family."""

from __future__ import annotations

from opsexec.runbook.field_types import FieldType, Key
from opsexec.steps.base import Step
from opsexec.steps.container_copies import ContainerCopyIn
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
from opsexec.steps.images import ImageBuild, ImageInspect, ImageRemove
from opsexec.steps.networks import NetworkCreate, NetworkRemove

_THERE: dict[str, FieldType] = {"name": "text", "labels": "texts"}
_PROGRAM: dict[str, FieldType] = {"argv": "words", "env": "environment", "user": "text", "workdir": "text"}
_SHAPE: dict[str, FieldType] = {
    "name": "text",
    "image": "text",
    "labels": "texts",
    **_PROGRAM,
    "hostname": "text",
    "read_only_root": "bool",
    "read_only": "texts",
    "writable": "texts",
    "tmpfs": "ints",
    "volumes": "words",
    "networks": "networks",
    "dns": "words",
    "extra_hosts": "texts",
    "memory_bytes": "int",
    "shm_bytes": "int",
    "cpus": "number",
    "pids": "int",
    "max_open_files": "int",
    "max_file_bytes": "int",
    "runtime": "text",
    "runtime_optional": "bool",
    "init": "bool",
    "syscalls": "text",
}

OWN_FIELDS: dict[type[Step], dict[str, FieldType]] = {
    ContainerRun: {**_SHAPE, "stdin": "secret"},
    ContainerCreate: _SHAPE,
    ContainerStart: _THERE,
    ContainerStop: {**_THERE, "grace_s": "int"},
    ContainerSignal: {**_THERE, "signal": "text"},
    ContainerRemove: _THERE,
    ContainerExec: {**_THERE, **_PROGRAM, "stdin": "secret"},
    ContainerCopyIn: {**_THERE, "dest": "text", "files": "files", "uid": "int", "gid": "int"},
    ContainerInspect: {"name": "text"},
    ContainerLogs: {"name": "text", "lines": "int"},
    ContainerList: {"labels": "texts", "names": "text", "kind": "text"},
    ImageBuild: {
        "name": "text",
        "dockerfile": "script",
        "labels": "texts",
        "files": "files",
        "context": "text",
        "build_args": "texts",
        "network": "text",
        "target": "text",
        "again": "bool",
    },
    ImageInspect: {"name": "text"},
    ImageRemove: _THERE,
    NetworkCreate: {**_THERE, "internal": "bool", "gateway": "bool", "subnet": "text"},
    NetworkRemove: _THERE,
}

REQUIRED: dict[type[Step], tuple[str, ...]] = {
    ContainerRun: ("name", "image", "labels"),
    ContainerCreate: ("name", "image", "labels"),
    ContainerStart: ("name", "labels"),
    ContainerStop: ("name", "labels"),
    ContainerSignal: ("name", "labels", "signal"),
    ContainerRemove: ("name", "labels"),
    ContainerExec: ("name", "labels", "argv"),
    ContainerCopyIn: ("name", "labels", "dest", "files"),
    ContainerInspect: ("name",),
    ContainerLogs: ("name",),
    ContainerList: ("labels",),
    ImageBuild: ("name", "dockerfile", "labels"),
    ImageInspect: ("name",),
    ImageRemove: ("name", "labels"),
    NetworkCreate: ("name", "labels"),
    NetworkRemove: ("name", "labels"),
}

KEYS: dict[str, Key] = {
    "container.run": Key(ContainerRun, None, "Make a container, run it to its end, and remove it."),
    "container.create": Key(ContainerCreate, None, "Make a container that lives on; of the same, it is left alone."),
    "container.start": Key(ContainerStart, None, "Start a container that was made."),
    "container.stop": Key(ContainerStop, None, "Ask a container to end, and after `grace_s` seconds end it."),
    "container.signal": Key(ContainerSignal, None, "Send a signal to a container's first process."),
    "container.remove": Key(ContainerRemove, None, "End a container and remove it with its volumes."),
    "container.exec": Key(ContainerExec, None, "Run a program in a container that runs."),
    "container.copy": Key(ContainerCopyIn, None, "Put files that stand in the runbook below a container's directory."),
    "container.inspect": Key(ContainerInspect, "name", "Look at a container; one that isn't there is an answer."),
    "container.logs": Key(ContainerLogs, "name", "Read what a container said; its text is the step's stdout."),
    "container.list": Key(ContainerList, None, "List containers, networks or images by their labels."),
    "image.build": Key(ImageBuild, None, "Build an image from a Dockerfile; of the same, it is left alone."),
    "image.inspect": Key(ImageInspect, "name", "Look at an image; one that isn't there is an answer."),
    "image.remove": Key(ImageRemove, None, "Remove an image."),
    "network.create": Key(NetworkCreate, None, "Make a bridge network; of the same, it is left alone."),
    "network.remove": Key(NetworkRemove, None, "Remove a network."),
}
