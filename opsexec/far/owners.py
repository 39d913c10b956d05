"""Whose a copied entry becomes: by name where this machine knows the name, else by number, as rsync does it."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from opsexec.far.tree_entry import Entry


class Owners:
    """Root gives entries their owner and group; anyone else only a group of their own."""

    def __init__(self) -> None:
        self.root = os.geteuid() == 0
        self.groups = {os.getegid(), *os.getgroups()}
        self.user_names = {}  # type: dict[int, str]
        self.group_names = {}  # type: dict[int, str]
        self._uids = {}  # type: dict[int, int]
        self._gids = {}  # type: dict[int, int]

    def uid(self, entry: Entry) -> int | None:
        """Return the owner an entry should have here; None = leave it."""
        if not self.root:
            return None
        if entry.uid not in self._uids:
            self._uids[entry.uid] = _look_up(entry.uid, self.user_names, _user)
        return self._uids[entry.uid]

    def gid(self, entry: Entry) -> int | None:
        """Return the group an entry should have here; None = leave it."""
        if entry.gid not in self._gids:
            self._gids[entry.gid] = _look_up(entry.gid, self.group_names, _group)
        gid = self._gids[entry.gid]
        return gid if self.root or gid in self.groups else None


def _look_up(number: int, names: dict[int, str], find: Callable[[str], int]) -> int:
    name = names.get(number, "")
    if number == 0 or not name or name == str(number):
        return number  # root is root everywhere
    try:
        return find(name)
    except KeyError:
        return number


def _user(name: str) -> int:
    import pwd

    return pwd.getpwnam(name).pw_uid


def _group(name: str) -> int:
    import grp

    return grp.getgrnam(name).gr_gid
