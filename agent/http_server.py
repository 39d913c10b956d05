"""aiohttp's server without its client: import what serves HTTP from here, nowhere else.

`import aiohttp` loads the client too, its connectors, resolvers and cookies: 7 MB and 0.15 s in a daemon that connects
to nobody. Here the package stands for itself unloaded; whoever asks it for something of its own gets the whole of it.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any

PACKAGE = "aiohttp"


class _Unloaded(ModuleType):
    """A package whose `__init__` runs when a name is asked for that is no module in it."""

    __version__ = "unloaded"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if find_spec(f"{PACKAGE}.{name}") is not None:
            return import_module(f"{PACKAGE}.{name}")
        assert self.__spec__ is not None
        assert self.__spec__.loader is not None
        self.__class__ = ModuleType  # type: ignore[assignment]  # from now on it is what it stood for
        self.__spec__.loader.exec_module(self)
        return getattr(self, name)


if PACKAGE not in sys.modules and (spec := find_spec(PACKAGE)) is not None:
    module = module_from_spec(spec)
    module.__class__ = _Unloaded
    sys.modules[PACKAGE] = module

from aiohttp.http_writer import HttpVersion11
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestHandler
from aiohttp.web_request import BaseRequest
from aiohttp.web_response import Response, StreamResponse
from aiohttp.web_server import Server

__all__ = ["BaseRequest", "HttpVersion11", "RequestHandler", "Response", "Server", "StreamReader", "StreamResponse"]
