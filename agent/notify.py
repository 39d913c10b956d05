"""What is told to the service manager (sd_notify(3)): ready, reloading, stopping, and one line of status."""

from __future__ import annotations

import asyncio
import os
import socket
import time


def notify(*lines: str) -> None:
    """Send lines like "READY=1" to the manager that started us; does nothing where there is none.

    A manager that can't be reached is no reason to stop serving.
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address or address[0] not in "/@":
        return
    if address[0] == "@":
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.sendto("\n".join(lines).encode(), address)
    except OSError:  # also for want of a descriptor
        return


def reloading() -> str:
    """Return the line that says since when this reloads."""
    return f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}"


async def beat() -> None:
    """Tell the manager for ever that the event loop turns, twice in each time it allows (WatchdogSec=); else return."""
    allowed = os.environ.get("WATCHDOG_USEC", "")
    if not allowed.isdecimal() or int(allowed) == 0:
        return
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return
    while True:
        notify("WATCHDOG=1")
        await asyncio.sleep(int(allowed) / 2e6)
