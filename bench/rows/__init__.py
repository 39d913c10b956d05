"""The rows of the table, in its order. A row is a module with NAME, TITLE and `run(rig) -> Row`."""

from __future__ import annotations

from types import ModuleType

from bench.rows import (
    agent_host,
    agent_steps,
    audit_cost,
    concurrency,
    copying,
    counters,
    distant,
    fleet_steps,
    idle_memory,
    local_exec,
    orphans,
    recorder,
    response,
    sequential,
    start_up,
    streaming,
)

ROWS: tuple[ModuleType, ...] = (
    local_exec,
    sequential,
    distant,
    fleet_steps,
    start_up,
    response,
    streaming,
    copying,
    audit_cost,
    idle_memory,
    concurrency,
    counters,
    orphans,
    agent_steps,
    agent_host,
    recorder,
)
BY_NAME: dict[str, ModuleType] = {module.NAME: module for module in ROWS}
