"""Providers by template name: three of our own, and what others register under the entry point `bottle.providers`."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from bottle.errors import BadManifest
from bottle.providers.base import Provider
from opsexec.runbook.reference import nearest

OWN = ("claude", "codex", "command")
GROUP = "bottle.providers"


def provider(template: str) -> Provider:
    """Return a template's provider; raises BadManifest for one nobody registered."""
    if template in OWN:
        return cast(Provider, import_module(f"bottle.providers.{template}").provide)
    from importlib.metadata import entry_points  # which takes longer to import than our own do

    others = {point.name: point for point in entry_points(group=GROUP)}
    if template not in others:
        raise BadManifest(f"there is no provider {template!r}", hint=nearest(template, [*OWN, *others]))
    return cast(Provider, others[template].load())
