"""Providers by template name: three of our own, and what others register under the entry point `bottle.providers`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

from bottle.errors import BadManifest
from bottle.providers.base import Provider
from opsexec.runbook.reference import nearest

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

OWN = ("claude", "codex", "command")
GROUP = "bottle.providers"


def provider(template: str) -> Provider:
    """Return a template's provider; raises BadManifest for one nobody registered."""
    if template in OWN:
        return cast(Provider, import_module(f"bottle.providers.{template}").provide)
    return cast(Provider, _registered(template).load())


def require_known(template: str) -> None:
    """Raise BadManifest for a template nobody registered; none is loaded."""
    if template not in OWN:
        _registered(template)


def _registered(template: str) -> EntryPoint:
    from importlib.metadata import entry_points  # which takes longer to import than our own do

    others = {point.name: point for point in entry_points(group=GROUP)}
    if template not in others:
        raise BadManifest(f"there is no provider {template!r}", hint=nearest(template, [*OWN, *others]))
    return others[template]
