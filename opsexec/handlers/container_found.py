"""Things of an engine by name: looked at, and held against the labels that a step names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from opsexec.engine.answers import Container, Image, Network, shaped
from opsexec.engine.calls import Calls
from opsexec.engine.client import Engine, EngineRefused
from opsexec.errors import StepFailed

Shape = TypeVar("Shape")


async def found(engine: Engine, look: Callable[[Calls], Any], shape: type[Shape]) -> Shape | None:
    """Return what an inspect call answers; None where there is nothing of that name."""
    try:
        return shaped(await engine.ask(look), shape, engine.host)
    except EngineRefused as error:
        if error.status == 404:
            return None
        raise


async def named_container(engine: Engine, name: str) -> Container | None:
    """Return a container by its name, None where there is none."""
    there = await found(engine, lambda calls: calls.inspect_container(name), Container)
    # An id, or the beginning of one, also names a container.
    return there if there is not None and there.name.lstrip("/") == name else None


async def container_of(engine: Engine, name: str, labels: Mapping[str, str]) -> Container | None:
    """Return a container by its name, None where there is none; raises StepFailed for one without these labels."""
    there = await named_container(engine, name)
    if there is not None:
        require_labels(there.config.labels, labels, f"container {name}", engine)
    return there


async def existing(engine: Engine, name: str, labels: Mapping[str, str]) -> Container:
    """Return a container; raises StepFailed where there is none, or one without these labels."""
    there = await container_of(engine, name, labels)
    if there is None:
        raise StepFailed(f"there is no container {name}", host=engine.host)
    return there


async def image_of(engine: Engine, name: str) -> Image | None:
    """Return an image, None where there is none."""
    there = await found(engine, lambda calls: calls.inspect_image(name), Image)
    return there if there is not None and there.is_called(name) else None


async def require_networks(engine: Engine, names: Iterable[str]) -> None:
    """Raise StepFailed unless networks of these names are there: an engine would also take the beginning of an id."""
    for name in names:
        if await _network(engine, name) is None:
            raise StepFailed(f"there is no network {name}", host=engine.host, hint="make it first: NetworkCreate")


async def network_of(engine: Engine, name: str, labels: Mapping[str, str]) -> Network | None:
    """Return the network of that name, None where there is none; raises StepFailed for one without the labels."""
    there = await _network(engine, name)
    if there is not None:
        require_labels(there.labels, labels, f"network {name}", engine)
    return there


async def _network(engine: Engine, name: str) -> Network | None:
    there = await found(engine, lambda calls: calls.inspect_network(name), Network)
    return there if there is not None and there.name == name else None


def require_labels(there: Mapping[str, str] | None, wanted: Mapping[str, str], what: str, engine: Engine) -> None:
    """Raise StepFailed unless all wanted labels are there: what carries others is somebody else's."""
    for key, value in wanted.items():
        if (there or {}).get(key) != value:
            hint = "it is somebody else's, and was left alone"
            raise StepFailed(f"the {what} doesn't carry {key}={value[:80]}", host=engine.host, hint=hint)
