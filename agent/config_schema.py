"""The JSON Schema of a config file, made from the model that checks it."""

from __future__ import annotations

from typing import Any

from agent.config import Config

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def config_schema() -> dict[str, Any]:
    """Return the schema, as the JSON that the file's TOML stands for."""
    return {"$schema": DIALECT, **Config.model_json_schema(), "title": "ops-agent config"}
