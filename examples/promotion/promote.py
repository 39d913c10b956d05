"""The promotion runbook of promote.yaml, written in Python: the same steps, gates and digest.

    python promote.py inventory.toml [VERSION] [--check]

A Step stands as it is; a Template is filled in for each host when its turn comes.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from opsexec import Exec, Inventory, Link, MakeDir, OpsError, Push, Runbook, ServiceControl, Shell, Stat, WriteFile
from opsexec.runbook import Assert, PlainProgress, Retry, RunbookStep, Template, Tier

HERE = str(Path(__file__).parent.absolute())

ROOM = """\
set -eu
free=$(df --output=avail -k "$root" | tail -n 1)
test "$free" -ge "$needed_kib"
"""

runbook = Runbook(
    name="promote web",
    hosts="web",
    capabilities=[
        "fs.read:/srv/web/**",
        "fs.write:/srv/web/**",
        "sync.push:/srv/web/releases/**",
        "service.control:web",
        "shell:web.room",
        "exec:/usr/bin/curl --fail --silent --max-time 5 *",
    ],
    vars={
        "version": "1.4.2",
        "root": "/srv/web",
        "release": "${root}/releases/${version}",
        "needed_kib": 200000,
    },
    tiers=[
        Tier("&dev"),
        Tier("&staging", serial=["50%"]),
        Tier("&prod", serial=[1, "25%", "100%"], approve=True),
    ],
    steps=[
        RunbookStep(Template(MakeDir, path="${root}/releases"), name="a place for releases"),
        RunbookStep(Shell("web.room", ROOM, timeout_s=10), name="room for a release", changed_when="false"),
        RunbookStep(Template(Stat, path="${root}/current"), name="what is live now", register="before"),
        RunbookStep(
            Template(
                WriteFile,
                path="${release}/release.txt",
                content="${version} on ${host}\n",
                mode="0644",
                parents=True,
            ),
            name="its label",
        ),
        RunbookStep(
            Template(
                Push,
                HERE,
                src="./site/",
                dest="${release}/",
                delete=True,
                excludes=["/release.txt"],
                timeout_s=600,
            ),
            name="the release",
            retry=Retry(2, delay=5),
        ),
        RunbookStep(Template(Link, path="${root}/current", target="${release}"), name="go live"),
        RunbookStep(ServiceControl(name="web", action="restart", timeout_s=60), name="restart", when="changed"),
        RunbookStep(
            Template(
                Exec,
                argv=[
                    "/usr/bin/curl",
                    "--fail",
                    "--silent",
                    "--max-time",
                    "5",
                    "http://127.0.0.1:${port}/release.txt",
                ],
            ),
            name="it answers",
            retry=Retry(5, delay=2),
            register="live",
            changed_when="false",
        ),
        RunbookStep(
            Assert("${version} in ${live.stdout}", message="${host} still serves ${live.stdout}"),
            name="it is the new one",
        ),
    ],
    always=[
        RunbookStep(
            Template(Link, path="${root}/current", target="${before.value.target}"),
            name="roll back",
            when="failed and ${before.exit_code} == 0 and ${before.value.exists}",
            register="rolled_back",
        ),
        RunbookStep(
            ServiceControl(name="web", action="restart", timeout_s=60),
            name="restart what is live again",
            when="${rolled_back.changed}",
        ),
    ],
)


async def main(arguments: list[str]) -> int:
    """Run it over an inventory; the exit status is the report's."""
    check = "--check" in arguments
    words = [word for word in arguments if not word.startswith("--")]
    given = {"version": words[1]} if len(words) > 1 else {}
    try:
        inventory = await Inventory.load(words[0] if words else None)
        report = await runbook.run(inventory, progress=PlainProgress(), check=check, vars=given)
    except OpsError as error:  # what is wrong before a host is contacted; a host's own failures stand in the report
        print(f"promote: {error} ({error.hint})", file=sys.stderr)
        return error.exit_code
    return report.exit_code


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
