"""`Look`: what a check is given. The host's probe, the service it is about, and what was declared of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from agent.services.probe import Probe, Unreadable

if TYPE_CHECKING:
    from agent.services.declaration import Declaration
    from agent.services.receipt import Receipt


class Service(NamedTuple):
    """The service a run is about. `unit`: its unit's name; `user`: it belongs to the login's own manager.

    `problem`: why its receipt can't be read, when it can't.
    """

    name: str
    unit: str
    user: bool
    declaration: Declaration | None = None
    receipt: Receipt | None = None
    problem: str | None = None


class Options(NamedTuple):
    """What a command line adds. `root`: the tree the persistence sweep reads; `baseline`: what was there before."""

    root: str = "/"
    baseline: dict[str, str] | None = None
    baseline_name: str = ""


class Look:
    """One subject on one host."""

    def __init__(self, probe: Probe, service: Service | None = None, options: Options | None = None) -> None:
        self.probe = probe
        self._service = service
        self.options = options or Options()

    @property
    def service(self) -> Service:
        """The service; checks of scope "service" run only where there is one."""
        assert self._service is not None
        return self._service

    @property
    def declared(self) -> Declaration | None:
        """What was declared of the service; None where nothing was, or there is no service."""
        return None if self._service is None else self._service.declaration

    @property
    def has_service(self) -> bool:
        """Whether this is about a service."""
        return self._service is not None

    @property
    def user(self) -> bool:
        """Whether the login's own service manager is meant."""
        return self._service is not None and self._service.user

    async def home(self) -> str:
        """The login's home directory."""
        return str((await self._user("home")) or "/")

    async def uid(self) -> int:
        """The login's uid."""
        return int(await self._user("uid"))

    async def runtime_dir(self) -> str | None:
        """Where the login's own services listen."""
        found = await self._user("runtime_dir")
        return found if isinstance(found, str) else None

    async def user_name(self) -> str:
        """The login's name."""
        return str(await self._user("name"))

    async def _user(self, key: str) -> Any:
        found = await self.probe.facts("user")
        if not isinstance(found, dict):
            raise Unreadable("the host can't tell who this login is")
        return found.get(key)

    async def system(self) -> str:
        """The kernel's name: Linux or Darwin."""
        found = await self.probe.facts("kernel")
        return str(found.get("system")) if isinstance(found, dict) else ""

    async def same_place(self, asked: str, found: str) -> bool:
        """Whether a path without links is the one that was asked for: a mac's /etc, /tmp and /var are in /private."""
        return found == asked or (found == f"/private{asked}" and await self.system() == "Darwin")

    async def examined(self) -> str:
        """The system that the sweep looks at: this host's, or that of the tree under `--root`."""
        if self.options.root == "/":
            return await self.system()
        mark = f"{self.options.root}/System/Library/CoreServices"
        try:
            return "Darwin" if (await self.probe.stat(mark)).kind == "directory" else "Linux"
        except Unreadable:
            return "Linux"  # a tree that can't be read says so place by place
