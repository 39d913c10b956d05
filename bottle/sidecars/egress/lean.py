"""Lets mitmproxy be imported without what the gate never uses: that takes longer than everything it does. Import first.

Its `addons` package imports thirty addons, a web server among them. HTTP/3 is off (`http3=False`, and no UDP reaches
the gate), but its layers, aioquic and what that stands on are imported with the others. Nobody types commands, whose
parser takes as long as all of TLS, and no options are read from a file. Here their places are taken by modules whose
every name is a class that can't be made: what asks whether something is of that kind is told no.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any, NoReturn

NAME = "mitmproxy.addons"
ABSENT = (
    "mitmproxy.proxy.layers.quic", "mitmproxy.proxy.layers.http._http3", "aioquic.h3.connection", "aioquic.tls",
    "mitmproxy.command_lexer", "pyparsing", "ruamel.yaml",
)  # fmt: skip


class Absent(ModuleType):
    """A module that isn't here."""

    def __getattr__(self, name: str) -> Any:
        """Return a class for any name that could be one's; the same one each time."""
        if name.startswith("__"):
            raise AttributeError(name)
        made = type(name, (), {"__module__": self.__name__, "__init__": _refuse})
        setattr(self, name, made)
        return made


def _refuse(self: object, *_: object, **__: object) -> NoReturn:
    raise NotImplementedError(f"the gate has no {type(self).__name__}")


def skip_the_others() -> None:
    """Put the packages in place with nothing run; raises ImportError where there is no mitmproxy."""
    if NAME in sys.modules:
        return
    found = find_spec("mitmproxy")
    if found is None or not found.submodule_search_locations:
        raise ImportError("mitmproxy isn't there")
    spec = ModuleSpec(NAME, None, is_package=True)
    spec.submodule_search_locations = [f"{place}/addons" for place in found.submodule_search_locations]
    sys.modules[NAME] = module_from_spec(spec)
    for name in ABSENT:
        parent = name.partition(".")[0]
        if parent == "aioquic":
            for above in ("aioquic", "aioquic.h3"):
                sys.modules.setdefault(above, Absent(above)).__path__ = []
        sys.modules[name] = Absent(name)


skip_the_others()
