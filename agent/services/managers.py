"""Which service manager a host has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.services.artifact import Places

if TYPE_CHECKING:
    from agent.services.look import Look
    from agent.services.manager import Manager


async def manager_of(look: Look) -> Manager:
    """Return the manager of the look's host and service; raises Unreadable."""
    home = await look.home()
    if await look.system() == "Darwin":
        from agent.services.launchd_identity import identity
        from agent.services.launchd_manager import LaunchdManager

        places = Places.of(look.service.name, user=look.user, home=home, darwin=True)
        return LaunchdManager(look, places, await identity(look))
    from agent.services.systemd_manager import SystemdManager

    return SystemdManager(look, Places.of(look.service.name, user=look.user, home=home))
