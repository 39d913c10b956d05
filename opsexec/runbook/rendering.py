"""Template + variables -> Step. Pure: what a step would be on a host is known without contacting it."""

from __future__ import annotations

import os.path
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from opsexec.errors import BadRunbook
from opsexec.runbook.field_types import FILE_KEYS, NETWORK_KEYS, FieldType
from opsexec.runbook.fields import fields_of
from opsexec.runbook.model import Template
from opsexec.runbook.reference import Reference
from opsexec.runbook.template import misplaced, references, render, render_open, scalar_text, whole_reference
from opsexec.runbook.variables import Scope
from opsexec.secret import Secret
from opsexec.steps.base import Step
from opsexec.steps.container_copies import GivenFile
from opsexec.steps.container_shape import Attachment
from opsexec.steps.process import Shell


def render_step(action: Step | Template, scope: Scope) -> Step:
    """Return the Step for this host, with its variables filled in, and in a script's environment.

    Raises BadRunbook for a variable that is missing or in the wrong place, BadStep for fields that make no
    Step.
    """
    step = fill(action, scope) if isinstance(action, Template) else action
    if isinstance(step, Shell):
        step = msgspec.structs.replace(step, env={**scope.environment(), **step.env})
    return step


def fill(template: Template, scope: Scope) -> Step:
    """Return the Step a template makes with these variables, and nothing else in its environment."""
    types = fields_of(template.kind)
    values = {name: _value(types[name], value, scope, name) for name, value in template.fields.items()}
    for name, kind in types.items():
        if kind == "local" and name in values and template.base_dir is not None:
            values[name] = under(template.base_dir, values[name])
    return template.kind(**values)


def under(base_dir: str, path: str) -> str:
    """Return a caller's path as seen from `base_dir`.

    A final slash, which means something to rsync, stays.
    """
    if not path or os.path.isabs(path):
        return path
    joined = os.path.normpath(os.path.join(base_dir, path))
    return joined + "/" if path.endswith(("/", "/.")) or path == "." else joined


def is_static(template: Template) -> bool:
    """True when nothing in the template needs a variable."""
    return not any(True for _ in template_references(template))


def template_references(template: Template) -> Iterator[tuple[Reference, str, FieldType]]:
    """Yield every reference in a template with the field it stands in and that field's type."""
    types = fields_of(template.kind)
    for name, value in template.fields.items():
        kind = types[name]
        if kind == "script":
            continue
        for text in _texts(value):
            for reference in references(text):
                yield reference, name, kind


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _texts(each)


def _value(kind: FieldType, value: Any, scope: Scope, name: str) -> Any:
    if kind == "local":
        _require_names(value, scope, name)
        return render_open(value, scope, name)
    if kind == "text":
        return render_open(value, scope, name)
    if kind == "script":
        return value
    if kind == "secret":
        return value if isinstance(value, Secret) else render(value, scope)
    if kind == "words":
        return tuple(render_open(word, scope, name) for word in value)
    if kind == "environment":
        return {key: v if isinstance(v, Secret) else render(v, scope) for key, v in value.items()}
    if kind == "texts":
        return {key: render_open(text, scope, name) for key, text in value.items()}
    if kind == "ints":
        return {key: _typed("int", each, scope, name) for key, each in value.items()}
    if kind == "networks":
        return tuple(_attachment(each, scope) for each in value)
    if kind == "files":
        return tuple(_given_file(path, each, scope) for path, each in value.items())
    return _typed(kind, value, scope, name)


def _attachment(said: Any, scope: Scope) -> Attachment:
    """Return a container's network, given as a name or as `{network, ipv4, aliases}`."""
    parts = _parts(said, "network", NETWORK_KEYS, "networks")
    aliases = tuple(render_open(alias, scope, "networks") for alias in parts.pop("aliases", ()))
    return Attachment(aliases=aliases, **{key: render_open(text, scope, "networks") for key, text in parts.items()})


def _given_file(path: str, said: Any, scope: Scope) -> GivenFile:
    """Return a file of the runbook's own, given as its content or as `{content, mode}`."""
    parts = _parts(said, "content", FILE_KEYS, "files")
    content = parts["content"]
    mode = {"mode": render_open(parts["mode"], scope, "files")} if "mode" in parts else {}
    return GivenFile(path, content if isinstance(content, Secret) else render(content, scope), **mode)


def _parts(said: Any, alone: str, known: tuple[str, ...], name: str) -> dict[str, Any]:
    """Return what is said as a map; what isn't one is its `alone`."""
    parts = dict(said) if isinstance(said, Mapping) else {alone: said}
    if alone not in parts or set(parts) - set(known):
        raise BadRunbook(f"{name} has an entry with {sorted(map(str, parts))}", hint="known: " + ", ".join(known))
    return parts


def _require_names(text: str, scope: Scope, place: str) -> None:
    """Raise BadRunbook unless what a host said stands in a path on this machine as a file's name at most.

    With more than a name a host could have any file of the caller's sent to it, or written here.
    """
    for reference in references(text):
        if reference.name in scope.registered:
            said = scalar_text(reference, scope.lookup(reference))
            if "/" in said or said in ("", ".", ".."):
                raise BadRunbook(
                    f"{place}: a host said that ${{{reference}}} is {said[:40]!r}, which is more than a file's name",
                    hint="write the directories of this machine into the runbook",
                )


def _typed(kind: FieldType, value: Any, scope: Scope, name: str) -> Any:
    """Return a bool or number, given as one or as exactly one reference to one."""
    if isinstance(value, str):
        reference = whole_reference(value)
        if reference is None:
            raise BadRunbook(f"{name} is {value[:40]!r}, not a {kind}", hint="give a value, or one ${name}")
        text, value = value, scope.lookup(reference)
        if isinstance(value, Secret):
            raise misplaced(text, name)
    try:
        return msgspec.convert(
            value, {"bool": bool, "int": int, "number": float}[kind], strict=not isinstance(value, str)
        )
    except msgspec.ValidationError as error:
        raise BadRunbook(
            f"{name} is not a {kind} ({error})", hint="--var gives text; numbers and true/false are read"
        ) from (error)
