"""What a check has foreseen of a host: what stands on it can't be asked of the host or its engine, and is assumed."""

from __future__ import annotations

from typing import Literal

from opsexec.runbook.foreseen_files import ForeseenFiles
from opsexec.steps.base import Step
from opsexec.steps.container_shape import ContainerShape
from opsexec.steps.containers import (
    ContainerCreate,
    ContainerInspect,
    ContainerList,
    ContainerLogs,
    ContainerRemove,
    ContainerStart,
    ContainerStop,
    Labelled,
)
from opsexec.steps.images import ImageBuild, ImageRemove, ImageStep
from opsexec.steps.networks import NetworkRemove, NetworkStep

Thing = tuple[str, str]
"""What is named: "container", "image" or "network", and its name."""

Fate = Literal["changed", "gone"]

_LASTING = (ContainerCreate, ContainerStart, ContainerStop, ContainerRemove, ImageBuild, ImageRemove, NetworkStep)
_ENDS = (ContainerRemove, ImageRemove, NetworkRemove)
_FINDS_NOTHING = (*_ENDS, ContainerStop)


class Foreseen:
    """One host's files, containers, images and networks as a check would have left them, where that may differ."""

    def __init__(self) -> None:
        self._fates: dict[Thing, Fate] = {}
        self._files = ForeseenFiles()

    def took(self, step: Step) -> None:
        """Note that this step would have changed something."""
        self._files.took(step)
        if isinstance(step, _LASTING):
            self._fates[_own(step)] = "gone" if isinstance(step, _ENDS) else "changed"

    def waits_for(self, step: Step) -> str | None:
        """Return what this step needs that is not as the host would say, in words; None where all of it is."""
        needed = next((thing for thing in _needs(step) if thing in self._fates), None)
        if needed is None and isinstance(step, ContainerList):
            kind = step.kind.removesuffix("s")
            needed = next((thing for thing in self._fates if thing[0] == kind), None)
        return self._files.waits_for(step) if needed is None else " ".join(needed)

    def explains_missing(self, step: Step) -> str | None:
        """Return what, in words, a step didn't find only because a check makes nothing; else None."""
        return self._files.explains_missing(step)

    def finds_nothing(self, step: Step) -> bool:
        """True when the step would end what an earlier one has removed already, and so change nothing."""
        if isinstance(step, _FINDS_NOTHING):
            return self._fates.get(_own(step)) == "gone"
        return self._files.finds_nothing(step)


def _own(step: Step) -> Thing:
    if isinstance(step, ImageStep):
        return "image", _whole(step.name)
    if isinstance(step, NetworkStep):
        return "network", step.name
    assert isinstance(step, (Labelled, ContainerShape, ContainerInspect, ContainerLogs))
    return "container", step.name


def _needs(step: Step) -> list[Thing]:
    """Return everything a step looks at by name."""
    if isinstance(step, ContainerShape):
        networks = [("network", each.network) for each in step.networks]
        return [_own(step), ("image", _whole(step.image)), *networks]
    if isinstance(step, ImageBuild):
        network = [("network", step.network)] if step.network is not None else []
        return [_own(step), *(("image", _whole(base)) for base in step.bases()), *network]
    if isinstance(step, (Labelled, ContainerInspect, ContainerLogs, ImageStep, NetworkStep)):
        return [_own(step)]
    return []


def _whole(image: str) -> str:
    """Return an image's name with its tag, also where that is the one that goes without saying."""
    return image if "@" in image or ":" in image.rpartition("/")[2] else f"{image}:latest"
