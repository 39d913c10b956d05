"""`fake_launchctl`: a program that stands where a mac has launchctl, keeps a state in a file and starts real processes.

Its words and exit statuses are written after launchctl(1) and what people report; none was recorded on a mac. As there,
a job that is booted out is known for a while, and its label is refused for a while longer. It runs by itself, with
nothing of this project: `/var/fake-launchd/state.json` is its memory, `calls` what it was asked.
"""

from __future__ import annotations

import json
import os
import plistlib
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HOME = Path("/var/fake-launchd")
STATE, CALLS, SETTINGS = HOME / "state.json", HOME / "calls", HOME / "settings.json"
DOMAINS = ("system", "gui/501", "user/501")


def fail(code: int, text: str) -> int:
    sys.stderr.write(f"{text}\n")
    return code


def main(words: list[str]) -> int:
    HOME.mkdir(parents=True, exist_ok=True)
    with CALLS.open("a") as calls:
        calls.write(" ".join(words) + "\n")
    settings = json.loads(SETTINGS.read_text()) if SETTINGS.exists() else {}
    if settings.get("garbage"):
        sys.stdout.write("\x1b[2Jwhat is this\n")
        return 0
    state = json.loads(STATE.read_text()) if STATE.exists() else {"jobs": {}, "disabled": {}, "busy": {}}
    try:
        return launchctl(state, settings, *words)
    finally:
        STATE.write_text(json.dumps(state))


def launchctl(state: dict[str, Any], settings: dict[str, Any], verb: str, *words: str) -> int:
    jobs = state["jobs"]
    for target, job in list(jobs.items()):
        if 0 < job["gone_at"] <= time.time():
            del jobs[target]
            state["busy"][target] = time.time() + settings.get("busy_s", 0)
    if verb == "managername":
        print("System")
        return 0
    if verb == "print-disabled":
        print("\n\tdisabled services = {")
        for label, off in state["disabled"].get(words[0], {}).items():
            print(f'\t\t"{label}" => {"disabled" if off else "enabled"}')
        print("\t}")
        return 0
    if verb == "bootstrap":
        return bootstrap(state, words[0], words[1])
    target = words[-1]
    domain, _, label = target.rpartition("/")
    if verb in ("enable", "disable"):
        state["disabled"].setdefault(domain, {})[label] = verb == "disable"
        return 0
    if verb == "print" and target in DOMAINS:
        print(f"{target} = {{\n\ttype = system\n}}")
        return 0
    found = jobs.get(target)
    if found is None:
        if domain not in DOMAINS:
            return fail(112, f"Could not find domain for {domain}")
        if verb == "bootout":
            return fail(3, "Boot-out failed: 3: No such process")
        return fail(113, f'Could not find service "{label}" in domain for system')
    if verb == "print":
        page(target, found)
    elif verb == "bootout":
        end(found, signal.SIGTERM)
        if settings.get("ends_s"):
            found["gone_at"] = found["gone_at"] or time.time() + settings["ends_s"]
            return fail(36, "Boot-out failed: 36: Operation now in progress")
        del jobs[target]
    elif verb == "kickstart":
        if "-k" in words:
            end(found, signal.SIGKILL)
        if not runs(found):
            start(found)
    elif verb == "kill":
        end(found, signal.SIGKILL)
    return 0


def bootstrap(state: dict[str, Any], domain: str, path: str) -> int:
    if domain not in DOMAINS:
        return fail(125, "Bootstrap failed: 125: Domain does not support specified action")
    file = Path(path)
    if not file.is_file() or file.stat().st_mode & 0o022:
        return fail(5, "Bootstrap failed: 5: Input/output error")
    keys = plistlib.loads(file.read_bytes())
    target = f"{domain}/{keys['Label']}"
    if target in state["jobs"] or state["busy"].get(target, 0) > time.time():
        return fail(5, "Bootstrap failed: 5: Input/output error")
    if state["disabled"].get(domain, {}).get(keys["Label"]):
        return fail(119, "Bootstrap failed: 119: Service is disabled")
    job = {"path": path, "keys": keys, "runs": 0, "pid": 0, "gone_at": 0.0}
    state["jobs"][target] = job
    if keys.get("RunAtLoad") or keys.get("KeepAlive") is True:
        start(job)
    return 0


def start(job: dict[str, Any]) -> None:
    keys = job["keys"]
    words = keys.get("ProgramArguments") or [keys["Program"]]
    job["runs"] += 1
    try:
        with open(keys.get("StandardOutPath", os.devnull), "ab") as out:
            started = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
                env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", **keys.get("EnvironmentVariables", {})},
            )  # fmt: skip
        job["pid"] = started.pid
    except OSError:
        job["pid"] = 0  # launchd says EX_CONFIG of it


def runs(job: dict[str, Any]) -> bool:
    try:
        return bool(job["pid"]) and Path(f"/proc/{job['pid']}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def end(job: dict[str, Any], how: signal.Signals) -> None:
    """End its program, by SIGKILL where it doesn't; its process group goes with it unless that is to be abandoned."""
    for each in dict.fromkeys((how, signal.SIGKILL)):
        if runs(job):
            (os.kill if job["keys"].get("AbandonProcessGroup") else os.killpg)(job["pid"], each)
        until = time.monotonic() + job["keys"].get("ExitTimeOut", 3)
        while runs(job) and time.monotonic() < until:
            time.sleep(0.01)
    job["pid"] = 0


def page(target: str, job: dict[str, Any]) -> None:
    keys, running = job["keys"], runs(job)
    print(f"{target} = {{\n\tactive count = {int(running)}\n\tpath = {job['path']}\n\ttype = LaunchDaemon")
    print(f"\tstate = {'running' if running else 'not running'}\n\n\targuments = {{")
    print("".join(f"\t\t{each}\n" for each in keys.get("ProgramArguments", [])) + "\t}\n\n\tenvironment = {")
    for name, value in keys.get("EnvironmentVariables", {}).items():
        print(f"\t\t{name} => {value}")
    print(f"\t\tXPC_SERVICE_NAME => {keys['Label']}\n\t}}\n\n\tdomain = {target.rpartition('/')[0]}")
    print(f"\tminimum runtime = 10\n\truns = {job['runs']}")
    if running:
        print(f"\tpid = {job['pid']}")
    print("\tlast exit code = (never exited)\n}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
