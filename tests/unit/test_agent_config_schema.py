"""The schema that the library ships is the one that the agent's own model has."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]  # it ships no types
import pytest

from agent.cli import main
from agent.config_schema import config_schema
from opsexec.schema import schema

EXAMPLE = Path(__file__).parents[2] / "examples" / "ops-agent.toml"


def test_the_shipped_schema_is_the_agents_own() -> None:
    assert schema("agent-config") == config_schema(), "write it anew: make docs"


def test_the_agent_prints_its_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == config_schema()


def test_the_example_is_valid_by_it_and_a_mistake_is_not() -> None:
    check = jsonschema.Draft202012Validator(schema("agent-config"))
    config = tomllib.loads(EXAMPLE.read_text())
    check.validate(config)
    config["audit"] = {"sign_evry_s": 5}
    assert not check.is_valid(config)
