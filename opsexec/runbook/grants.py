"""What a runbook needs: the least capabilities of its steps, before any host is known. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from opsexec.capability import Capability, Requirement, program_candidates
from opsexec.errors import BadRunbook, OpsError
from opsexec.runbook.field_types import FieldType
from opsexec.runbook.fields import REQUIRED, fields_of
from opsexec.runbook.model import Assert, Runbook, Template
from opsexec.runbook.reference import Reference, descend
from opsexec.runbook.rendering import fill
from opsexec.runbook.template import bounded, parse_template, scalar_text
from opsexec.runbook.variables import Scope
from opsexec.secret import Secret
from opsexec.secret_source import SecretSource
from opsexec.steps.base import Step
from opsexec.steps.environment import environment_needs
from opsexec.steps.files import RemoveFile, SetMode
from opsexec.steps.sync import Sync
from opsexec.verbs import ANY_PATTERN, VERBS

_ANY_WORD = "0opsexec-any-word0"
_ANY_TREE = "0opsexec-any-tree0"
"""Stand for values that only a host knows.

Every step takes them where a word, or a segment of a path, may stand.
"""

_DECIDES = frozenset(
    {
        *("argv", "action", "script", "path", "src", "dest", "name", "names", "env", "creates"),
        *("image", "networks", "read_only", "writable", "dockerfile", "build_args", "context", "network", "kind"),
    }
)
"""The fields that requirements are derived from; the others are left at their defaults here."""

_PATHS = frozenset({"path", "src", "dest", "creates", "read_only", "writable", "context"})

_REQUIRED: dict[str, Any] = {
    "content": "", "target": "x", "mode": "0755", "labels": {"x": "x"}, "signal": "SIGHUP", "files": {}
}  # fmt: skip
"""Required fields that decide nothing, each with a value that any Step takes."""

_NAME_CHARACTER = re.compile(r"[^A-Za-z0-9_.:@%+=,/*-]")
_BARE = re.compile(r"[A-Za-z0-9_@%+=:,./*-]+\Z")
_STARS = re.compile(r"\*+")


def least_capabilities(runbook: Runbook) -> list[str]:
    """Return the capability strings that admit every step, sorted: what a host must grant for this runbook.

    Where a value is known only on a host, `*` stands for it (`**` for the head of a path). A bare program
    name stands for each place where hosts look for it. Users to become are not capabilities: grant those
    with `run_as`.
    """
    texts: set[str] = set()
    for _, step in runbook.all_steps():
        tree = takes_a_tree(step.action)
        for need in step_needs(step.action, runbook):
            texts.update(capability_texts(need, tree=tree))
    return sorted(texts)


def step_needs(action: Step | Template | Assert, runbook: Runbook) -> tuple[Requirement, ...]:
    """Return what a step needs, with a marker wherever a value is known only on a host."""
    if isinstance(action, Assert):
        return ()
    if not isinstance(action, Template):
        return action.requires()
    scope = _Guess(runbook)
    fields: dict[str, Any] = {}
    for name, kind in fields_of(action.kind).items():
        if name not in action.fields or name not in _DECIDES:
            continue
        fields[name] = scope.field(name, kind, action.fields[name])
    for name, value in _REQUIRED.items():
        if name in REQUIRED[action.kind] or (name == "mode" and action.kind is SetMode):
            fields[name] = value
    try:
        return fill(Template(action.kind, **fields), _NOTHING).requires()
    except OpsError:
        return _widest(action)


_NOTHING = Scope(runbook={}, host={}, overrides={}, builtins={}, secrets={})


def _escaped(text: str) -> str:
    """Return a text so that filling it in again gives it as it is."""
    return text.replace("${", "$${")


def _widest(template: Template) -> tuple[Requirement, ...]:
    """A template whose guess is no Step (facts by a variable's name): any resource of its verbs."""
    verbs = dict.fromkeys(_VERBS.get(str(_tag(template)), ()))
    if template.fields.get("creates") is not None:
        verbs["fs.read"] = None
    needs = tuple(Requirement(verb, ANY_PATTERN[VERBS[verb].kind]) for verb in verbs)
    return (*needs, *environment_needs(dict.fromkeys(template.fields.get("env") or (), "")))


def _tag(template: Template) -> Any:
    return template.kind.__struct_config__.tag


_VERBS = {
    "exec": ("exec",),
    "shell": ("shell",),
    "read_file": ("fs.read",),
    "stat": ("fs.read",),
    "write_file": ("fs.write",),
    "make_dir": ("fs.write",),
    "link": ("fs.write",),
    "set_mode": ("fs.write",),
    "remove_file": ("fs.remove",),
    "push": ("sync.push",),
    "pull": ("sync.pull",),
    "service": ("service.control",),
    "service_status": ("service.read",),
    "facts": ("facts",),
    "container_run": ("container.run", "image.read", "network.join", "fs.read", "fs.write"),
    "container_create": ("container.run", "image.read", "network.join", "fs.read", "fs.write"),
    "container_start": ("container.run",),
    "container_stop": ("container.remove",),
    "container_signal": ("container.remove",),
    "container_remove": ("container.remove",),
    "container_exec": ("container.exec",),
    "container_copy_in": ("container.copy",),
    "container_inspect": ("container.read",),
    "container_logs": ("container.read",),
    "container_list": ("container.read", "image.read", "network.manage"),
    "image_build": ("image.build", "image.read", "network.join", "fs.read"),
    "image_inspect": ("image.read",),
    "image_remove": ("image.build",),
    "network_create": ("network.manage",),
    "network_remove": ("network.manage",),
}


class _Guess:
    """Fills in what the runbook itself says, and a marker for everything else."""

    def __init__(self, runbook: Runbook) -> None:
        known = {name: value for name, value in runbook.vars.items() if not isinstance(value, SecretSource)}
        self._scope = Scope(runbook=known, host={}, overrides={}, builtins={}, secrets={})
        self._vars = known
        self._open: set[str] = set()
        self._partial: dict[tuple[str, bool], str | None] = {}

    def field(self, name: str, kind: FieldType, value: Any) -> Any:
        """Return a field of a template so that filling it in gives the guess."""
        path = name in _PATHS
        if kind in ("text", "local"):
            return _escaped(self.text(value, path=path))
        if kind == "words":
            return [_escaped(self.text(word, path=i == 0 and name == "argv")) for i, word in enumerate(value)]
        if kind == "environment":
            return dict.fromkeys(value, "")
        if kind == "texts":
            return {key: _escaped(self.text(text, path=path)) for key, text in value.items()}
        if kind == "networks":
            names = [each["network"] if isinstance(each, Mapping) else each for each in value]
            return list(dict.fromkeys(_escaped(self.text(each, path=False)) for each in names))
        return value

    def text(self, text: str, *, path: bool) -> str:
        out = ""
        for part in parse_template(text):
            bounded(len(out), text)
            if isinstance(part, str):
                out += part
                continue
            head = path and not out
            value = None if (part.name, head) in self._partial else self._known(part)
            if value is None:
                value = self._partly(part, path=head)
            if value is not None:
                out += value
            elif path and not out:
                out += f"/{_ANY_TREE}"
            else:
                out += _ANY_WORD
        return out

    def _known(self, reference: Reference) -> str | None:
        try:
            value = descend(reference, self._scope.lookup(Reference(reference.name, ())))
            return None if isinstance(value, Secret) else scalar_text(reference, value)
        except BadRunbook:
            return None

    def _partly(self, reference: Reference, *, path: bool) -> str | None:
        """Return a variable that the runbook gives with a host's value in it: what stands around that is known."""
        name, value = reference.name, self._vars.get(reference.name)
        if reference.path or not isinstance(value, str) or name in self._open:
            return None
        if (name, path) not in self._partial:  # each once: variables that hold each other twice grow fast
            self._open.add(name)
            try:
                self._partial[name, path] = self.text(value, path=path)
            except BadRunbook:
                self._partial[name, path] = None
            finally:
                self._open.remove(name)
        return self._partial[name, path]


def takes_a_tree(action: Step | Template | Assert) -> bool:
    """True when the host asks for a grant on all below the path too: copies, and removing a tree."""
    if isinstance(action, Template):
        recursive = bool(action.fields.get("recursive", False))
        return issubclass(action.kind, Sync) or (action.kind is RemoveFile and recursive)
    return isinstance(action, Sync) or (isinstance(action, RemoveFile) and action.recursive)


def capability_texts(need: Requirement, *, tree: bool = False) -> Iterator[str]:
    """Yield the capability strings that together admit a requirement on any host; `tree`: and all below it."""
    if isinstance(need.resource, str):
        pattern = _pattern(need.verb, need.resource)
        if tree and not pattern.endswith("/**"):
            pattern = pattern.rstrip("/") + "/**"
        yield _valid(need.verb, pattern)
        return
    first, *rest = need.resource
    if first == "**" or first == f"/{_ANY_TREE}":
        yield f"{need.verb}:**"
        return
    programs = program_candidates(first)
    words = [_STARS.sub("*", word.replace(_ANY_WORD, "*").replace(_ANY_TREE, "*")) for word in rest]
    for program in programs:
        yield _valid(need.verb, " ".join(map(_quoted, (_path(program), *words))))


def _quoted(word: str) -> str:
    return word if _BARE.match(word) else shlex.quote(word)


def _pattern(verb: str, resource: str) -> str:
    if VERBS[verb].kind == "path":
        return _path(resource)
    return _STARS.sub("*", _NAME_CHARACTER.sub("*", resource.replace(_ANY_WORD, "*").replace(_ANY_TREE, "*")))


def _path(path: str) -> str:
    segments = []
    for segment in path.split("/"):
        if segment in (_ANY_TREE, "**"):
            segments.append("**")
        else:
            tree = _ANY_TREE in segment
            segment = _STARS.sub("*", segment.replace(_ANY_WORD, "*").replace(_ANY_TREE, "*"))
            segments += ["**", segment] if tree else [segment]
    return "/".join(segments)


def _valid(verb: str, pattern: str) -> str:
    """Return the capability, or the widest of its verb where no narrower one can be written."""
    text = f"{verb}:{pattern}"
    try:
        Capability.parse(text)
    except OpsError:
        return f"{verb}:{ANY_PATTERN[VERBS[verb].kind]}"
    return text


def users(runbook: Runbook) -> list[str]:
    """Return the users its steps become, sorted; `*` where only a host knows."""
    found = set()
    for _, step in runbook.all_steps():
        action = step.action
        if isinstance(action, Template):
            user = action.fields.get("run_as")
            found.add("*" if user is not None and "${" in user else user)
        elif isinstance(action, Step):
            found.add(msgspec.structs.asdict(action)["run_as"])
    return sorted(user for user in found if user is not None)
