"""Steps on container images: built from a Dockerfile, made of a root file system, looked at, removed."""

from __future__ import annotations

import re
from collections.abc import Mapping

from opsexec.capability import Requirement
from opsexec.errors import BadStep
from opsexec.secret import Secret
from opsexec.steps.base import Step
from opsexec.steps.container_copies import GivenFile, bounded, checked_files
from opsexec.steps.container_shape import checked_labels, image_name, network_name, refuse_user
from opsexec.steps.dockerfile import images_of
from opsexec.steps.sandbox import bound

_ARGUMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
MAX_DOCKERFILE = 256 << 10


class ImageStep(Step, frozen=True, kw_only=True):
    """A step about one image."""

    family = "containers"

    name: str

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_user(self)
        image_name(self.name)


class ImageBuild(ImageStep, frozen=True, tag="image_build"):
    """Build an image from a Dockerfile, and name it.

    `dockerfile`: its text. `files`: what it may copy; `context`: a directory on the host (it ends with `/`) whose
    files it may copy too. `build_args` stand in the image's history, so none is a Secret. `network`: the container
    network its RUN lines have, None = none at all. Images it builds on must be there already: nothing is pulled.
    An image of that name, built of the same, is left as it is unless `again`; another network is no other image.
    `value` is `{id}`.
    """

    dockerfile: str
    labels: Mapping[str, str]
    files: tuple[GivenFile, ...] = ()
    context: str | None = None
    build_args: Mapping[str, str] = {}
    network: str | None = None
    target: str | None = None
    again: bool = False
    max_bytes: int = 1 << 30
    max_entries: int = 100_000

    def __post_init__(self) -> None:
        super().__post_init__()
        checked_labels(self.labels)
        checked_files(self.files)
        bounded(self.max_bytes, self.max_entries)
        if len(self.dockerfile) > MAX_DOCKERFILE:
            raise BadStep(f"the Dockerfile is over {MAX_DOCKERFILE} characters")
        for key, value in self.build_args.items():
            if not _ARGUMENT.match(key) or "\0" in value:
                raise BadStep(f"build argument {key[:60]!r} is malformed")
        if any(isinstance(file.content, Secret) for file in self.files):
            raise BadStep("a Secret would stand in a layer of the image", hint="give it to the container instead")
        if self.network is not None:
            network_name(self.network)
        if self.target is not None and not _ARGUMENT.match(self.target.replace("-", "_")):
            raise BadStep(f"target {self.target[:60]!r} is malformed")
        if self.context is not None and not self.context.endswith("/"):
            raise BadStep("context is no directory", hint="end it with /")
        self.bases()

    def bases(self) -> tuple[str, ...]:
        """Return the images that are built on or copied from; raises BadStep for one that can't be known."""
        return images_of(self.dockerfile, self.build_args)

    def requires(self) -> tuple[Requirement, ...]:
        needs = [Requirement("image.build", self.name)]
        needs += [Requirement("image.read", base) for base in self.bases()]
        if self.network is not None:
            needs.append(Requirement("network.join", self.network))
        if self.context is not None:
            needs.append(Requirement("fs.read", bound(self.context)))
        return tuple(needs)


class ImageImport(ImageStep, frozen=True, tag="image_import"):
    """Make an image of one layer from a root file system: a tar stream, given as input. `value` is `{id}`."""

    labels: Mapping[str, str]
    max_bytes: int = 8 << 30

    def __post_init__(self) -> None:
        super().__post_init__()
        checked_labels(self.labels)
        bounded(self.max_bytes, 1)

    def requires(self) -> tuple[Requirement, ...]:
        return (Requirement("image.build", self.name),)


class ImageInspect(ImageStep, frozen=True, tag="image_inspect"):
    """Look at one image; `value` is `{exists, id, labels, size, created, digests, env_names, user, argv}`."""

    mutates = False

    def requires(self) -> tuple[Requirement, ...]:
        return (Requirement("image.read", self.name),)


class ImageRemove(ImageStep, frozen=True, tag="image_remove"):
    """Remove an image that carries these labels; one that isn't there is no error."""

    labels: Mapping[str, str]

    def __post_init__(self) -> None:
        super().__post_init__()
        checked_labels(self.labels)

    def requires(self) -> tuple[Requirement, ...]:
        return (Requirement("image.build", self.name),)
