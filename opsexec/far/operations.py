"""The operations a host can be asked for: `OPERATIONS[name](args) -> answer`, messages of byte strings both.

A family's module is loaded when its first operation is called, or by `load`. Grants travel with every call as one
packed item (`far.message.pack_layers`) and are checked on the place the path leads to. Every error is a FarError.
"""

from __future__ import annotations

from opsexec.far.faults import named

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def _read_file(args: list[bytes]) -> list[bytes]:
    from opsexec.far import files

    return files.read_file(args)


def _stat(args: list[bytes]) -> list[bytes]:
    from opsexec.far import files

    return files.stat(args)


def _write_file(args: list[bytes]) -> list[bytes]:
    from opsexec.far import writing

    return writing.write_file(args)


def _remove(args: list[bytes]) -> list[bytes]:
    from opsexec.far import removal

    return removal.remove(args)


def _move_file(args: list[bytes]) -> list[bytes]:
    from opsexec.far import moving

    return moving.move_file(args)


def _make_dir(args: list[bytes]) -> list[bytes]:
    from opsexec.far import files

    return files.make_dir(args)


def _link(args: list[bytes]) -> list[bytes]:
    from opsexec.far import files

    return files.link(args)


def _set_mode(args: list[bytes]) -> list[bytes]:
    from opsexec.far import files

    return files.set_mode(args)


def _facts(args: list[bytes]) -> list[bytes]:
    from opsexec.far import facts

    return facts.facts(args)


def _observe(args: list[bytes]) -> list[bytes]:
    from opsexec.far import observe

    return observe.observe(args)


def _survey(args: list[bytes]) -> list[bytes]:
    from opsexec.far import survey

    return survey.survey(args)


def _list_tree(args: list[bytes]) -> list[bytes]:
    from opsexec.far import listing

    return listing.list_tree(args)


def _ping_socket(args: list[bytes]) -> list[bytes]:
    from opsexec.far import socket_ping

    return socket_ping.ping_socket(args)


OPERATIONS: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "read_file": named(_read_file, "read"),
    "stat": named(_stat, "read the metadata of"),
    "write_file": named(_write_file, "write"),
    "remove": named(_remove, "remove"),
    "move_file": named(_move_file, "move"),
    "make_dir": named(_make_dir, "make the directory"),
    "link": named(_link, "make the link"),
    "set_mode": named(_set_mode, "set the mode or owner of"),
    "facts": named(_facts, "read facts"),
    "observe": named(_observe, "observe"),
    "survey": named(_survey, "list"),
    "list_tree": named(_list_tree, "list"),
    "ping_socket": named(_ping_socket, "ping"),
}

FAMILIES = {
    "read_file": "files",
    "stat": "files",
    "write_file": "writing",
    "remove": "removal",
    "move_file": "moving",
    "make_dir": "files",
    "link": "files",
    "set_mode": "files",
    "facts": "facts",
    "observe": "observe",
    "survey": "survey",
    "list_tree": "listing",
    "ping_socket": "socket_ping",
}
"""Which module of this package an operation is in."""


def load(name: str) -> None:
    """Load an operation's family, and what most answers are written with.

    What can't be loaded, or is no operation, is told when it is called.
    """
    from contextlib import suppress
    from importlib import import_module

    if name in FAMILIES:
        with suppress(ImportError):
            import_module("opsexec.far." + FAMILIES[name])
            import_module("json")
            if name == "stat":
                import_module("hashlib")
