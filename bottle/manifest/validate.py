"""A document -> a model. Every complaint names the file, the line, the key, and the nearest key there is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from bottle.errors import BadManifest
from bottle.manifest import kinds
from bottle.manifest.document import Document, Path
from bottle.manifest.model import KEYS, Agent, Bottle, plain
from opsexec.runbook.reference import nearest

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

Model = TypeVar("Model", bound=BaseModel)

IGNORED = frozenset({"name", "description", "model", "color", "memory"})
"""Keys of an agent file that are another program's."""

_WANTED = {
    "string_type": "text is needed; quote it",
    "bool_type": "true or false is needed",
    "tuple_type": "a list is needed: write [a, b], or one per line after -",
    "model_type": "a map is needed: write key: value",
    "model_attributes_type": "a map is needed: write key: value",
    "dict_type": "a map is needed: write key: value",
}


def read_bottle(document: Document) -> kinds.Bottle:
    """Return the bottle this document stands for; raises BadManifest at the first thing wrong."""
    found: kinds.Bottle = plain(validated(document, Bottle))
    return found


def read_agent(document: Document) -> kinds.Agent:
    """Return the agent this document stands for; raises BadManifest at the first thing wrong."""
    found: kinds.Agent = plain(validated(document, Agent))
    return found


def validated(document: Document, kind: type[Model]) -> Model:
    """Return the model this document stands for; raises BadManifest at the first thing wrong."""
    _refuse_moved_keys(document)
    _refuse_empty(document, document.data, (), kind)
    try:
        return kind.model_validate(document.data)
    except ValidationError as error:
        raise _complaint(document, kind, error.errors(include_url=False)) from None  # its text repeats every value


def _refuse_moved_keys(document: Document) -> None:
    if "git" in document.data:
        hint = "git.user -> git-gate.user, git.remotes -> git-gate.repos"
        raise BadManifest(f"{document.place(('git',))}: the key 'git' became 'git-gate'", hint=hint)


def _refuse_empty(document: Document, value: Any, path: Path, kind: type[BaseModel]) -> None:
    """Refuse a key without a value: whether it means "none" or "as it was" can't be told."""
    if value is None:
        raise BadManifest(f"{document.place(path)}: {spelled(path)} is empty", hint="give it a value, or leave it out")
    if isinstance(value, dict):
        for key, each in value.items():
            if not path and kind is Agent and key in IGNORED:
                continue
            _refuse_empty(document, each, (*path, key), kind)
    elif isinstance(value, list):
        for at, each in enumerate(value):
            _refuse_empty(document, each, (*path, at), kind)


def _complaint(document: Document, kind: type[BaseModel], errors: list[ErrorDetails]) -> BadManifest:
    # An unknown key first: what else is wrong often follows from it.
    first = next((each for each in errors if each["type"] == "extra_forbidden"), errors[0])
    path: Path = tuple(part for part in first["loc"] if part != "[key]")
    place = document.place(path)
    if first["type"] == "extra_forbidden":
        known = _known(kind, path[:-1], document.data)
        near = nearest(str(path[-1]), known)
        allowed = "allowed here: " + ", ".join(known)
        inside = f" in {spelled(path[:-1])}" if path[:-1] else ""
        hint = allowed if near.startswith("known:") else f"{near} ({allowed})"
        return BadManifest(f"{place}: unknown key {str(path[-1])[:60]!r}{inside}", hint=hint)
    if first["type"] == "missing":
        known = _known(kind, path[:-1], document.data)
        return BadManifest(f"{place}: {spelled(path)} is missing", hint="allowed here: " + ", ".join(known))
    if first["type"] == "value_error":
        reason = str(first["ctx"]["error"])
        path = (*path, *getattr(first["ctx"]["error"], "path", ()))
        place = document.place(path)
        text = f"{spelled(path)}: {reason}" if path else reason
        hint = getattr(first["ctx"]["error"], "hint", "docs/bottle.md shows each key")
        return BadManifest(f"{place}: {text}", hint=hint)
    text = _WANTED.get(first["type"], first["msg"][:1].lower() + first["msg"][1:])
    return BadManifest(f"{place}: {spelled(path)}: {text}", hint="docs/bottle.md shows each key")


def spelled(path: Path) -> str:
    """Return a path as people write it: `egress.routes[0].host`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f"{'.' if text else ''}{part}"
    return text or "the manifest"


def _known(kind: type[BaseModel], path: Path, data: object) -> tuple[str, ...]:
    """Return the keys that the model at this path takes."""
    nested: dict[tuple[str, ...], str] = {
        ("agent_provider",): "AgentProvider",
        ("git-gate",): "GitGate" if kind is Bottle else "AgentGitGate",
        ("git-gate", "user"): "GitUser",
        ("git-gate", "repos", "*"): "Repository",
        ("git-gate", "repos", "*", "policy"): "GatePolicy",
        ("egress",): "Egress",
        ("egress", "routes", "*"): "Route",
        ("egress", "routes", "*", "auth"): "Auth",
        ("egress", "routes", "*", "pipelock"): "PipelockRoute",
    }
    general = tuple(
        "*" if isinstance(part, int) or path[:at] == ("git-gate", "repos") else part for at, part in enumerate(path)
    )
    name = nested.get(general)
    for model, keys in KEYS.items():
        if model.__name__ == name or (not path and model is kind):
            return keys
    return ()
