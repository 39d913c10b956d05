"""Containers, networks and images as they are: nothing here changes one, and no value of an environment is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opsexec.engine.answers import ListedContainer, ListedImage, Network, shaped
from opsexec.engine.client import Engine
from opsexec.errors import StepFailed
from opsexec.far.match import word_matches
from opsexec.handlers.container_found import named_container
from opsexec.handlers.context import Context, Outcome
from opsexec.handlers.limits import give
from opsexec.steps.containers import ContainerInspect, ContainerList, ContainerLogs

if TYPE_CHECKING:
    import docker


async def inspect(step: ContainerInspect, engine: Engine, context: Context) -> Outcome:
    """Look at one container."""
    there = await named_container(engine, step.name)
    if there is None:
        return Outcome(value={"exists": False})
    networks = (there.network_settings and there.network_settings.networks) or {}
    value = {
        "exists": True,
        "id": there.id,
        "image": there.image,
        "image_name": there.config.image,
        "labels": there.config.labels or {},
        "env_names": there.config.env_names,
        "status": there.state.status,
        "running": there.state.running,
        "exit_code": there.state.exit_code,
        "oom_killed": there.state.oom_killed,
        "started_at": there.state.started_at,
        "finished_at": there.state.finished_at,
        "networks": {
            name: {"ipv4": each.ip_address or None, "mac": each.mac_address or None} for name, each in networks.items()
        },
        "mounts": [{"type": each.type, "inside": each.destination, "writable": each.rw} for each in there.mounts or ()],
    }
    return Outcome(value=value)


async def logs(step: ContainerLogs, engine: Engine, context: Context) -> Outcome:
    """Give what a container said to the sink."""

    there = await named_container(engine, step.name)
    if there is None:
        raise StepFailed(f"there is no container {step.name}", host=engine.host)
    container = there.id

    def read(client: docker.APIClient) -> tuple[bytes, bytes]:
        out = client.logs(container, stdout=True, stderr=False, tail=step.lines)
        return out, client.logs(container, stdout=False, stderr=True, tail=step.lines)

    for stream, said in enumerate(await engine.ask_package(read)):
        await give(stream, said, context)
    return Outcome()


async def find(step: ContainerList, engine: Engine, context: Context) -> Outcome:
    """List what carries the labels."""
    filters = {"label": [f"{key}={value}" if value else key for key, value in step.labels.items()]}
    if step.kind == "networks":
        said = await engine.ask_package(lambda client: client.networks(filters=filters))
        nets = shaped(said, list[Network], engine.host)
        rows = [_row(each.name, each.id, each.labels, "network") for each in nets]
    elif step.kind == "images":
        said = await engine.ask_package(lambda client: client.images(filters=filters))
        images = shaped(said, list[ListedImage], engine.host)
        rows = [_row(name, each.id, each.labels, "image") for each in images for name in each.repo_tags or [each.id]]
    else:
        said = await engine.ask_package(lambda client: client.containers(all=True, filters=filters))
        listed = shaped(said, list[ListedContainer], engine.host)
        rows = [_row(each.names[0].lstrip("/"), each.id, each.labels, each.state) for each in listed if each.names]
    shown = [row for row in rows if word_matches(step.names, row["name"]) and _carries(row["labels"], step.labels)]
    return Outcome(value=sorted(shown, key=lambda row: (row["name"], row["id"])))


def _row(name: str, identity: str, labels: dict[str, str] | None, status: str | None) -> dict[str, Any]:
    return {"name": name, "id": identity, "labels": labels or {}, "status": status}


def _carries(labels: dict[str, str], wanted: Any) -> bool:
    return all(key in labels and (not value or labels[key] == value) for key, value in wanted.items())
