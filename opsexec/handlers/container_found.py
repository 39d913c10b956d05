"""Things of an engine by name: looked at, and held against the labels that a step names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from opsexec.engine.client import Engine, EngineRefused
from opsexec.errors import StepFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    import docker


async def found(engine: Engine, look: Callable[[docker.APIClient], dict[str, Any]]) -> dict[str, Any] | None:
    """Return what an inspect call answers; None where there is nothing of that name."""
    try:
        return await engine.ask(look)
    except EngineRefused as error:
        if error.status == 404:
            return None
        raise


async def container_of(engine: Engine, name: str, labels: Mapping[str, str]) -> dict[str, Any] | None:
    """Return a container by its name, None where there is none; raises StepFailed for one without these labels."""
    there = await found(engine, lambda client: client.inspect_container(name))
    if there is None:
        return None
    if there["Name"].lstrip("/") != name:  # an id, or the beginning of one, also names a container
        return None
    require_labels(there["Config"].get("Labels"), labels, f"container {name}", engine)
    return there


async def existing(engine: Engine, name: str, labels: Mapping[str, str]) -> dict[str, Any]:
    """Return a container; raises StepFailed where there is none, or one without these labels."""
    there = await container_of(engine, name, labels)
    if there is None:
        raise StepFailed(f"there is no container {name}", host=engine.host)
    return there


def require_labels(there: Mapping[str, str] | None, wanted: Mapping[str, str], what: str, engine: Engine) -> None:
    """Raise StepFailed unless all wanted labels are there: what carries others is somebody else's."""
    for key, value in wanted.items():
        if (there or {}).get(key) != value:
            hint = "it is somebody else's, and was left alone"
            raise StepFailed(f"the {what} doesn't carry {key}={value[:80]}", host=engine.host, hint=hint)
