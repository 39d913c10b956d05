"""Container networks: bridges, without a way out and without an address of the host's where nothing else is asked."""

from __future__ import annotations

from typing import Any

from opsexec.engine.answers import Network, Pool, shaped
from opsexec.engine.calls import Calls
from opsexec.engine.client import Engine, EngineRefused
from opsexec.errors import AddressesTaken, MadeDifferently
from opsexec.handlers.container_config import CONFIG_LABEL, digest_of
from opsexec.handlers.container_found import network_of
from opsexec.handlers.container_run import to_the_end
from opsexec.handlers.context import Context, Outcome
from opsexec.steps.networks import NetworkCreate, NetworkRemove

NO_ADDRESS = {"com.docker.network.bridge.inhibit_ipv4": "true"}
"""The host's end of the bridge gets no address (docker network create, bridge driver options)."""
DRIVER = {"com.docker.network.bridge.enable_icc": "true"}


async def create(step: NetworkCreate, engine: Engine, context: Context) -> Outcome:
    """Make a network; one that was made from the same is left as it is."""
    digest = digest_of(step.name, dict(step.labels), step.internal, step.gateway, step.subnet)
    there = await network_of(engine, step.name, step.labels)
    if there is not None:
        if (there.labels or {}).get(CONFIG_LABEL) == digest:
            return Outcome(value=_value(there))
        text = f"network {step.name} was made from something else"
        raise MadeDifferently(text, host=engine.host, hint="remove it first")
    diff = f"make network {step.name}\n" if context.diff else None
    if context.check:
        return Outcome(changed=True, diff=diff)

    body: dict[str, Any] = {
        "Name": step.name,
        "Driver": "bridge",
        "Internal": step.internal,
        "Options": DRIVER | ({} if step.gateway else NO_ADDRESS),
        "Labels": {**step.labels, CONFIG_LABEL: digest},
        "CheckDuplicate": True,
    }
    if step.subnet:
        body["IPAM"] = {"Driver": "default", "Config": [{"Subnet": step.subnet}]}

    def make(calls: Calls) -> Any:
        return calls.inspect_network(calls.create_network(body)["Id"])

    try:
        made = await to_the_end(engine.ask(make))
    except EngineRefused as error:
        if step.subnet and "overlap" in error.message:  # an engine has words for it, and no status of its own
            raise AddressesTaken(error.message, host=error.host, hint="name another subnet") from error
        raise
    return Outcome(changed=True, diff=diff, value=_value(shaped(made, Network, engine.host)))


async def remove(step: NetworkRemove, engine: Engine, context: Context) -> Outcome:
    """Remove a network; one that isn't there is no error."""
    there = await network_of(engine, step.name, step.labels)
    if there is None:
        return Outcome(value={"name": step.name, "removed": False})
    if not context.check:
        try:
            await engine.ask(lambda calls: calls.remove_network(there.id))
        except EngineRefused as error:
            if error.status != 404:
                raise
    diff = f"remove network {step.name}\n" if context.diff else None
    return Outcome(changed=True, diff=diff, value={"name": step.name, "removed": True})


def _value(network: Network) -> dict[str, Any]:
    pool = ((network.ipam and network.ipam.config) or [Pool()])[0]
    return {"id": network.id, "subnet": pool.subnet, "gateway": pool.gateway}
