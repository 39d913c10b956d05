"""One step of the YAML -> RunbookStep."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from opsexec.runbook.field_types import FILE_KEYS, NETWORK_KEYS, FieldType
from opsexec.runbook.fields import KEYS, OWN_FIELDS, PROCESS, REQUIRED, SERVICE_ACTIONS
from opsexec.runbook.model import Action, Assert, Retry, RunbookStep, Template
from opsexec.runbook.node_reader import NodeReader
from opsexec.runbook.rendering import fill, is_static
from opsexec.runbook.template import parse_template, whole_reference
from opsexec.runbook.variables import Scope
from opsexec.runbook.yaml_nodes import Entry, Node, fault
from opsexec.steps import Exec, ServiceStatus, Shell, Step

COMMON_KEYS = (
    "name",
    "when",
    "retry",
    "timeout",
    "register",
    "tags",
    "run_as",
    "changed_when",
    "allow_failure",
)
ACTION_KEYS = (*KEYS, "assert")
NO_VARIABLES = Scope(runbook={}, host={}, overrides={}, builtins={}, secrets={})


class StepReader:
    """Reads the steps of one file; `base_dir` is what the caller's own paths in it are relative to."""

    def __init__(self, reader: NodeReader, base_dir: str | None) -> None:
        self._reader = reader
        self._base_dir = base_dir

    def step(self, node: Node) -> RunbookStep:
        """Return the step a node describes."""
        reader = self._reader
        entries = reader.entries(node, (*ACTION_KEYS, *COMMON_KEYS, *PROCESS))
        actions = [key for key in entries if key in ACTION_KEYS]
        if len(actions) != 1:
            said = f"does {' and '.join(actions)} at once" if actions else "does nothing"
            fault(reader.file, node.line, f"a step {said}", "give it exactly one of: " + ", ".join(ACTION_KEYS))
        key = actions[0]
        line = entries[key].line
        self._refuse_misplaced(key, entries)
        common = {name: entries[name].node for name in entries if name in COMMON_KEYS}
        action = self._assert(entries[key].node) if key == "assert" else self._action(key, entries)
        values: dict[str, Any] = {"line": node.line}
        readers: dict[str, Callable[[Node], Any]] = {
            "name": reader.text,
            "when": reader.text,
            "changed_when": reader.text,
            "register": reader.text,
            "allow_failure": reader.bool,
            "tags": lambda tags: [reader.text(each) for each in (tags.value if tags.kind == "list" else [tags])],
            "retry": self._retry,
        }
        for name, each in common.items():
            if name in readers:
                values[name] = readers[name](each)
        with reader.at(line):
            return RunbookStep(action, **values)

    def _refuse_misplaced(self, key: str, entries: dict[str, Entry]) -> None:
        """Refuse keys that mean nothing on this kind of step."""
        process = key in ("exec", "shell")
        for name, entry in entries.items():
            wrong = (name in PROCESS and not process) or (key == "assert" and name in ("run_as", "timeout"))
            if wrong:
                inside = key in KEYS and name in OWN_FIELDS[KEYS[key].step]
                hint = f"write it inside {key}" if inside else "take it out"
                fault(self._reader.file, entry.line, f"{name!r} means nothing on a step with {key!r}", hint)

    def _retry(self, node: Node) -> Retry:
        entries = self._reader.entries(node, ("times", "delay"), required=("times",))
        times = self._reader.whole(entries["times"].node)
        delay = float(self._reader.number(entries["delay"].node)) if "delay" in entries else 0.0
        with self._reader.at(node.line):
            return Retry(times, delay)

    def _assert(self, node: Node) -> Assert:
        if node.kind == "scalar":
            with self._reader.at(node.line):
                return Assert(self._reader.text(node))
        entries = self._reader.entries(node, ("that", "message"), required=("that",))
        message = self._reader.text(entries["message"].node) if "message" in entries else None
        with self._reader.at(entries["that"].line):
            return Assert(self._reader.text(entries["that"].node), message)

    def _action(self, key: str, entries: dict[str, Entry]) -> Action:
        reader, node = self._reader, entries[key].node
        kind = KEYS[key].step
        fields = self._own_fields(key, node, kind)
        if key == "service" and fields["action"] == "status":
            kind = ServiceStatus
            fields.pop("action")
        for name in PROCESS:
            if name in entries:
                fields[name] = self._field(PROCESS[name], entries[name].node)
        if "run_as" in entries:
            fields["run_as"] = self._field("text", entries["run_as"].node)
        if "timeout" in entries:
            fields["timeout_s"] = self._field("number", entries["timeout"].node)
        with reader.at(entries[key].line):
            template = Template(kind, self._base_dir, **fields)
            if not is_static(template):
                return template
            step = fill(template, NO_VARIABLES)
            # Some fields (environment names, `creates`) are only looked at when the requirements are derived.
            step.requires()
            return step

    def _own_fields(self, key: str, node: Node, kind: type[Step]) -> dict[str, Any]:
        reader, own, shorthand = self._reader, OWN_FIELDS[kind], KEYS[key].shorthand
        if kind is Exec and node.kind == "scalar":
            fault(
                reader.file,
                node.line,
                "exec is one text",
                "give a list of words, like [/usr/bin/id, -u], or use shell",
            )
        if shorthand is not None and node.kind != "map":
            if shorthand == "names" and node.kind == "scalar":
                return {"names": [] if node.raw == "all" else [reader.text(node)]}
            return {shorthand: self._field(own[shorthand], node)}
        if kind is Exec:
            fault(reader.file, node.line, "exec is a map", "give a list of words, like [/usr/bin/id, -u]")
        entries = reader.entries(node, tuple(own), REQUIRED[kind] if key != "service" else ("name", "action"))
        if kind is Shell and entries["script"].node.kind != "scalar":
            fault(reader.file, entries["script"].line, "the script is not text", "write it after |")
        fields = {name: self._field(own[name], entry.node) for name, entry in entries.items()}
        if key == "service" and fields["action"] not in SERVICE_ACTIONS:
            shown = f"unknown service action {fields['action'][:40]!r}"
            fault(reader.file, entries["action"].line, shown, "one of: " + ", ".join(SERVICE_ACTIONS))
        if kind is Shell and fields.get("interpreter", "/bin/sh") not in ("/bin/sh", "/bin/bash"):
            fault(reader.file, entries["interpreter"].line, "the interpreter is neither /bin/sh nor /bin/bash")
        return fields

    def _field(self, kind: FieldType, node: Node) -> Any:
        """Return a field's value; text that may hold `${...}` is checked here, so that its line is known."""
        reader = self._reader
        if kind == "words":
            return [self._template(each) for each in reader.list(node)]
        if kind in ("environment", "texts"):
            return {name: self._template(entry.node) for name, entry in reader.map(node).items()}
        if kind == "ints":
            return {name: self._typed("int", entry.node) for name, entry in reader.map(node).items()}
        if kind == "networks":
            return [self._network(each) for each in reader.list(node)]
        if kind == "files":
            return {path: self._file(entry.node) for path, entry in reader.map(node).items()}
        if kind == "script":
            return reader.text(node)
        if kind in ("bool", "int", "number"):
            return self._typed(kind, node)
        return self._template(node)

    def _network(self, node: Node) -> str | dict[str, Any]:
        """Return a network that a container is on: its name, or what else is said of it too."""
        if node.kind != "map":
            return self._template(node)
        entries = self._reader.entries(node, NETWORK_KEYS, required=("network",))
        texts = {name: entry.node for name, entry in entries.items() if name != "aliases"}
        made: dict[str, Any] = {name: self._template(each) for name, each in texts.items()}
        if "aliases" in entries:
            made["aliases"] = [self._template(each) for each in self._reader.list(entries["aliases"].node)]
        return made

    def _file(self, node: Node) -> str | dict[str, str]:
        """Return a file that stands in the runbook: its content, or its mode too."""
        if node.kind != "map":
            return self._template(node)
        entries = self._reader.entries(node, FILE_KEYS, required=("content",))
        return {name: self._template(entry.node) for name, entry in entries.items()}

    def _typed(self, kind: FieldType, node: Node) -> Any:
        reader = self._reader
        if isinstance(node.value, str) and "${" in node.value:
            with reader.at(node.line):
                if whole_reference(node.value) is not None:
                    return node.value
        if kind == "bool":
            return reader.bool(node)
        return reader.whole(node) if kind == "int" else float(reader.number(node))

    def _template(self, node: Node) -> str:
        text = self._reader.text(node)
        with self._reader.at(node.line):
            parse_template(text)
        return text
