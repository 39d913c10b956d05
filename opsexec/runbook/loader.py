"""YAML -> Runbook.

Every key is known or refused with file:line, and every step is built as far as it can be.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from opsexec.errors import BadRunbook
from opsexec.runbook.loader_steps import StepReader
from opsexec.runbook.model import Runbook, Tier
from opsexec.runbook.node_reader import NodeReader
from opsexec.runbook.secrecy import refuse_misplaced_secrets
from opsexec.runbook.yaml_nodes import MAX_BYTES, Node, fault, parse_nodes
from opsexec.secret_source import secret_source

TOP_KEYS = ("name", "hosts", "capabilities", "vars", "max_failures", "tiers", "steps", "always")
TIER_KEYS = ("hosts", "name", "serial", "approve", "max_failures")


def load_runbook(path: str | os.PathLike[str]) -> Runbook:
    """Load a runbook file.

    Raises BadRunbook with file:line. Local paths in it are relative to its directory.
    """
    file = os.fspath(path)
    try:
        with open(file, "rb") as opened:
            data = opened.read(MAX_BYTES + 1)
    except OSError as error:
        raise BadRunbook(f"{file}: can't be read ({error.strerror})", hint="check the path") from error
    except ValueError as error:
        raise BadRunbook(f"{file!r} is not a path", hint="check the path") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BadRunbook(f"{file}:{line}: not UTF-8", hint="save it as UTF-8") from error
    return parse_runbook(text, file, base_dir=str(Path(file).parent.absolute()))


def parse_runbook(text: str, file: str = "runbook.yaml", *, base_dir: str | None = None) -> Runbook:
    """Parse a runbook's text; raises BadRunbook with file:line."""
    root = parse_nodes(text, file)
    if root is None:
        fault(file, 1, "the runbook is empty", "it needs name, hosts and steps")
    reader = NodeReader(file)
    entries = reader.entries(root, TOP_KEYS, required=("name", "hosts", "steps"))
    steps = StepReader(reader, base_dir)
    values: dict[str, Any] = {
        "name": reader.text(entries["name"].node),
        "hosts": reader.text(entries["hosts"].node),
        "file": file,
        "steps": [steps.step(node) for node in reader.list(entries["steps"].node)],
    }
    if "always" in entries:
        values["always"] = [steps.step(node) for node in reader.list(entries["always"].node)]
    if "capabilities" in entries:
        values["capabilities"] = _capabilities(reader, entries["capabilities"].node)
    if "vars" in entries:
        values["vars"] = _vars(reader, entries["vars"].node)
    if "max_failures" in entries:
        values["max_failures"] = reader.share(entries["max_failures"].node)
    if "tiers" in entries:
        values["tiers"] = [_tier(reader, node) for node in reader.list(entries["tiers"].node)]
    with reader.at(root.line):
        runbook = Runbook(**values)
    for step in (*runbook.steps, *runbook.always):
        with reader.at(step.line or root.line):
            refuse_misplaced_secrets(step, runbook.vars)
    return runbook


def _capabilities(reader: NodeReader, node: Node) -> list[str]:
    from opsexec.capability import Capability

    texts = []
    for each in reader.list(node):
        text = reader.text(each)
        with reader.at(each.line):
            Capability.parse(text)
        texts.append(text)
    return texts


def _vars(reader: NodeReader, node: Node) -> dict[str, Any]:
    from opsexec.runbook.model import check_variable
    from opsexec.runbook.template import parse_template

    values: dict[str, Any] = {}
    for name, entry in reader.map(node).items():
        with reader.at(entry.line):
            check_variable(name)
            value = reader.data(entry.node)
            source = secret_source(value) if isinstance(value, dict) else None
            _check_texts(value if source is None else None, parse_template)
        values[name] = value if source is None else source
    return values


def _check_texts(value: Any, check: Callable[[str], object]) -> None:
    """Check every text of a variable.

    A secret below the top level would pass as plain data, so it is refused.
    """
    if isinstance(value, str):
        check(value)
    elif isinstance(value, Mapping):
        for each in value.values():
            _nested(each, check)
    elif isinstance(value, list):
        for each in value:
            _nested(each, check)


def _nested(value: Any, check: Callable[[str], object]) -> None:
    if isinstance(value, Mapping) and secret_source(value) is not None:
        raise BadRunbook("a secret stands inside another value", hint="give the secret a variable of its own")
    _check_texts(value, check)


def _tier(reader: NodeReader, node: Node) -> Tier:
    entries = reader.entries(node, TIER_KEYS, required=("hosts",))
    values: dict[str, Any] = {"hosts": reader.text(entries["hosts"].node)}
    if "name" in entries:
        values["name"] = reader.text(entries["name"].node)
    if "approve" in entries:
        values["approve"] = reader.bool(entries["approve"].node)
    if "max_failures" in entries:
        values["max_failures"] = reader.share(entries["max_failures"].node)
    if "serial" in entries:
        serial = entries["serial"].node
        values["serial"] = [reader.share(each) for each in (serial.value if serial.kind == "list" else [serial])]
    with reader.at(node.line):
        return Tier(values.pop("hosts"), **values)
