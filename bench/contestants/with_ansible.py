"""ansible-playbook with pipelining, one task a step, with the linear strategy or mitogen's.

The process becomes ansible-playbook; `ansible_clock` is the callback that reports.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from bench.contestants.protocol import job

CLOCK = Path(__file__).with_name("ansible_clock")


def configuration(work: dict[str, Any], home: Path) -> str:
    lines = [
        "[defaults]", "gathering = explicit", "host_key_checking = True", "retry_files_enabled = False",
        f"forks = {max(5, len(work['hosts']))}", f"callback_plugins = {CLOCK}", "stdout_callback = clock",
        "interpreter_python = /usr/bin/python3", f"local_tmp = {home}/tmp", "deprecation_warnings = False",
    ]  # fmt: skip
    if work.get("mitogen"):
        import ansible_mitogen

        strategies = Path(ansible_mitogen.__file__).parent / "plugins/strategy"
        lines += [f"strategy_plugins = {strategies}", "strategy = mitogen_linear"]
    lines += [
        "[ssh_connection]",
        "pipelining = True",
        "ssh_args = -F none -o ControlMaster=auto -o ControlPersist=60s",
    ]
    return "\n".join(lines) + "\n"


def host_line(host: dict[str, Any]) -> str:
    common = (
        f"-o IdentitiesOnly=yes -o IdentityAgent=none -o UserKnownHostsFile={host['known_hosts']} "
        "-o GlobalKnownHostsFile=/dev/null -o StrictHostKeyChecking=yes"
    )
    return (
        f"{host['address']} ansible_port={host['port']} ansible_user={host['user']} "
        f"ansible_ssh_private_key_file={host['identity']} ansible_ssh_common_args='{common}'\n"
    )


def tasks(work: dict[str, Any]) -> list[dict[str, Any]]:
    if work["work"] == "hold":
        task: dict[str, Any] = {"ansible.builtin.shell": work["script"]}
        return [{**task, "timeout": work["deadline_s"]} if work["event"] == "deadline" else task]
    step = {"ansible.builtin.command": {"argv": work["argv"]}}
    return [{"name": "warm", **step}] * bool(work.get("warm")) + [step] * work["count"]


def main() -> None:
    work = job()
    home = Path(os.environ["HOME"])
    (home / "ansible.cfg").write_text(configuration(work, home))
    (home / "hosts").write_text("".join(host_line(host) for host in work["hosts"]))
    play = [{"hosts": "all", "gather_facts": False, "tasks": tasks(work)}]
    (home / "play.yml").write_text(json.dumps(play))
    os.environ["ANSIBLE_CONFIG"] = str(home / "ansible.cfg")
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    os.execv(program, [program, "-i", str(home / "hosts"), str(home / "play.yml")])


main()
