"""Lets mitmproxy's single addons be imported without all the others: its `addons` package imports thirty, a web server
and three more protocols among them, which takes longer than everything the gate uses. Import this first.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, module_from_spec

NAME = "mitmproxy.addons"


def skip_the_others() -> None:
    """Put the package in place with its path and nothing run; raises ImportError where there is no mitmproxy."""
    if NAME in sys.modules:
        return
    found = find_spec("mitmproxy")
    if found is None or not found.submodule_search_locations:
        raise ImportError("mitmproxy isn't there")
    spec = ModuleSpec(NAME, None, is_package=True)
    spec.submodule_search_locations = [f"{place}/addons" for place in found.submodule_search_locations]
    sys.modules[NAME] = module_from_spec(spec)


skip_the_others()
