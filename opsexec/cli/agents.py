"""Commands that ask the ops-agent of one host for what only an agent has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opsexec.errors import HostUnsuitable

if TYPE_CHECKING:
    import argparse

    from opsexec.cli.targets import Target
    from opsexec.host_executor import HostExecutor
    from opsexec.rpc import AgentRpc


async def open_agent(args: argparse.Namespace, host: str) -> AgentRpc:
    """Return the executor of one host; raises HostUnsuitable for a host that isn't reached through an agent."""
    from opsexec.cli.targets import find_target, open_executor

    args.host = host
    target = await find_target(args)
    return require_agent(target, open_executor(target, args))


def require_agent(target: Target, executor: HostExecutor) -> AgentRpc:
    """Return an executor as the agent's that it must be; raises HostUnsuitable."""
    from opsexec.rpc import AgentRpc

    if not isinstance(executor, AgentRpc):
        hint = "agent+unix:///path, agent+ssh://[user@]host or tailnet://name; or give it such a url in the inventory"
        raise HostUnsuitable(f"reached without ops-agent, by {target.host.url}", host=target.name, hint=hint)
    return executor
