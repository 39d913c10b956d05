"""lint.wrapper: the scripts a service starts, as files."""

from __future__ import annotations

import re

from agent.services.check import check
from agent.services.checks.lint_exec import programs
from agent.services.command_line import base
from agent.services.definition import Script, definition, scripts
from agent.services.finding import Evidence, Fix, Ruling, failed, noted, passed, skipped
from agent.services.look import Look

GNU_ONLY = {
    "date -d": re.compile(r"\bdate\s+(-\w+\s+)*(-d|--date)\b"),
    "readlink -f": re.compile(r"\breadlink\s+-\w*f"),
    "sed -i": re.compile(r"\bsed\s+(-\w+\s+)*-i(?!\s*(''|\"\"))"),
    "stat -c": re.compile(r"\bstat\s+(-\w+\s+)*(-c|--format)"),
    "grep -P": re.compile(r"\bgrep\s+-\w*P"),
    "xargs -r": re.compile(r"\bxargs\s+-\w*r"),
    "timeout": re.compile(r"(^|[;&|]\s*|\s)timeout\s+\d"),
    "setsid": re.compile(r"(^|[;&|]\s*|\s)setsid\s"),
}
"""What scripts written on Linux use and macOS lacks."""

SHELLS = ("sh", "bash", "dash", "ksh", "ash")


def interpreter(script: Script) -> str | None:
    """Return a script's interpreter; None when its first line names none."""
    first = script.file.data[:512].split(b"\n", 1)[0]
    if not first.startswith(b"#!"):
        return None
    words = first[2:].decode("utf-8", "replace").split()
    if not words:
        return None
    return words[1] if base(words[0]) == "env" and len(words) > 1 else words[0]


def gnu_only(text: str) -> list[str]:
    """Return the names of what a script uses that macOS doesn't have."""
    plain = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    return [name for name, pattern in GNU_ONLY.items() if pattern.search(plain)]


@check(
    "lint.wrapper", "service", reads="the programs and scripts of Exec* lines; `sh -n`; their first line and mode",
    fails_when="a program is missing or can't be executed, or a script isn't well-formed", platforms=("Linux",),
    severity="high", blocks=True,
)  # fmt: skip
async def wrapper(look: Look) -> list[Ruling] | Ruling:
    """Rule on every program and script."""
    found: list[Ruling] = []
    named = [path for path in programs((await definition(look)).unit) if "%" not in path]
    for path in named[:32]:
        entry = await look.probe.stat(path)
        if not entry.exists:
            found.append(
                failed(f"{path} doesn't exist", Evidence(path=path), fix=Fix(text="install it, or correct the path"))
            )
        elif entry.kind == "file" and not int(entry.mode, 8) & 0o111:
            argv = ("chmod", "+x", path)
            found.append(
                failed(f"{path} is not executable", Evidence(path=path), fix=Fix(text="make it so", argv=argv))
            )
    for script in await scripts(look):
        found += await _script(look, script)
    if not found:
        return passed(f"{len(named)} programs are there") if named else skipped("no program is named by its path")
    return found


async def _script(look: Look, script: Script) -> list[Ruling]:
    path = script.file.asked
    name = interpreter(script)
    if name is None:
        if path == script.setting.value.split()[0].lstrip("@-:+!|"):
            return [failed(f"{path} has no #! line", Evidence(path=path, line=1))]
        name = "sh"
    found = []
    if base(name) in SHELLS:
        said = await look.probe.ask("shell.syntax", path)
        # Every sh refuses what bash alone knows (arrays, process substitution), so its word counts for sh scripts only.
        if said.rc != 0:
            text = f"`sh -n` doesn't take {path}"
            found.append((failed if base(name) in ("sh", "dash", "ash") else noted)(text, said.evidence))
    elif name.startswith("/") and not (await look.probe.stat(name)).exists:
        found.append(failed(f"{path} needs {name}, which doesn't exist", Evidence(path=path, line=1)))
    if look.declared is not None and await look.system() == "Darwin":
        used = gnu_only(script.file.text)
        if used:
            found.append(failed(f"{path} uses {', '.join(used)}, which macOS lacks", Evidence(path=path)))
    return found
