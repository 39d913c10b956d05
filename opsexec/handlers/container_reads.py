"""Containers, networks and images as they are: nothing here changes one, and no value of an environment is told."""

from __future__ import annotations

import asyncio
from typing import Any

from opsexec.engine.client import Engine
from opsexec.errors import StepFailed
from opsexec.far.match import word_matches
from opsexec.handlers.container_found import found
from opsexec.handlers.context import Context, Outcome
from opsexec.handlers.limits import require_within_limit
from opsexec.steps.containers import ContainerInspect, ContainerList, ContainerLogs


async def inspect(step: ContainerInspect, engine: Engine, context: Context) -> Outcome:
    """Look at one container."""
    there = await found(engine, lambda client: client.inspect_container(step.name))
    if there is None or there["Name"].lstrip("/") != step.name:
        return Outcome(value={"exists": False})
    config, state = there["Config"], there["State"]
    networks = (there.get("NetworkSettings") or {}).get("Networks") or {}
    value = {
        "exists": True,
        "id": there["Id"],
        "image": there["Image"],
        "image_name": config.get("Image"),
        "labels": config.get("Labels") or {},
        "env_names": sorted(each.partition("=")[0] for each in config.get("Env") or ()),
        "status": state.get("Status"),
        "running": state.get("Running"),
        "exit_code": state.get("ExitCode"),
        "oom_killed": state.get("OOMKilled"),
        "started_at": state.get("StartedAt"),
        "finished_at": state.get("FinishedAt"),
        "networks": {name: {"ipv4": each.get("IPAddress") or None, "mac": each.get("MacAddress") or None}
                     for name, each in networks.items()},
        "mounts": [{"type": each.get("Type"), "inside": each.get("Destination"), "writable": each.get("RW")}
                   for each in there.get("Mounts") or ()],
    }  # fmt: skip
    return Outcome(value=value)


async def logs(step: ContainerLogs, engine: Engine, context: Context) -> Outcome:
    """Give what a container said to the sink."""

    def read(client: Any) -> tuple[bytes, bytes]:
        out = client.logs(step.name, stdout=True, stderr=False, tail=step.lines)
        return out, client.logs(step.name, stdout=False, stderr=True, tail=step.lines)

    there = await found(engine, lambda client: client.inspect_container(step.name))
    if there is None:
        raise StepFailed(f"there is no container {step.name}", host=engine.host)
    for stream, said in enumerate(await engine.ask(read)):
        await _give(stream, said, context)
    return Outcome()


async def _give(stream: int, said: bytes, context: Context) -> None:
    drained = asyncio.Event()
    context.recorder.on_drain = context.recorder.on_failure = drained.set
    for at in range(0, len(said), 64 << 10):
        drained.clear()
        ready = context.recorder.feed(stream, said[at : at + (64 << 10)])
        require_within_limit(context)
        if context.recorder.failure is not None:
            return
        if not ready:
            await drained.wait()


async def find(step: ContainerList, engine: Engine, context: Context) -> Outcome:
    """List what carries the labels."""
    filters = {"label": [f"{key}={value}" if value else key for key, value in step.labels.items()]}
    if step.kind == "networks":
        listed = await engine.ask(lambda client: client.networks(filters=filters))
        rows = [_row(each["Name"], each["Id"], each.get("Labels"), "network") for each in listed]
    elif step.kind == "images":
        listed = await engine.ask(lambda client: client.images(filters=filters))
        rows = [
            _row(name, each["Id"], each.get("Labels"), "image")
            for each in listed
            for name in each.get("RepoTags") or [each["Id"]]
        ]
    else:
        listed = await engine.ask(lambda client: client.containers(all=True, filters=filters))
        rows = [
            _row(each["Names"][0].lstrip("/"), each["Id"], each.get("Labels"), each.get("State"))
            for each in listed
            if each.get("Names")
        ]
    shown = [row for row in rows if word_matches(step.names, row["name"]) and _carries(row["labels"], step.labels)]
    return Outcome(value=sorted(shown, key=lambda row: (row["name"], row["id"])))


def _row(name: str, identity: str, labels: dict[str, str] | None, status: str | None) -> dict[str, Any]:
    return {"name": name, "id": identity, "labels": labels or {}, "status": status}


def _carries(labels: dict[str, str], wanted: Any) -> bool:
    return all(key in labels and (not value or labels[key] == value) for key, value in wanted.items())
