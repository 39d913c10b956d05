"""`FakeLaunchd`: a mac in memory whose `launchctl` keeps a state.

Its words are written after public descriptions of launchctl(1); none was recorded on a mac.

It knows what the doctor and the changing commands need: bootstrap, bootout, enable, disable, kickstart, kill, print,
print-disabled, managername, with the exit statuses of launchctl(1). As people report it, a job that is booted out is
there for a while, and its label can't be bootstrapped for a while longer.
"""

from __future__ import annotations

import plistlib
from typing import Any

from opsexec.hosts.port import ProcessSpec
from opsexec.testing import Answer, FakeHost

FACTS: dict[str, Any] = {
    "kernel": {"system": "Darwin", "machine": "arm64"},
    "os": {},
    "user": {"name": "root", "uid": 0, "home": "/var/root", "runtime_dir": None},
    "tools": {},
    "disks": [],
}
ENROLLED = "Enrolled via DEP: No\nMDM enrollment: Yes (User Approved)\nMDM server: https://mdm.example.com/mdm\n"
NO_PROCESS, DENIED, IN_PROGRESS, UNDER_WAY, NOT_FOUND, NO_DOMAIN, DISABLED = 3, 5, 36, 37, 113, 112, 119
PAGE = """{target} = {{
\tactive count = {active}
\tpath = {path}
\ttype = LaunchDaemon
\tstate = {state}

\tprogram = {program}
\targuments = {{
\t\t{program}
{arguments}\t}}

\tdefault environment = {{
\t\tPATH => /usr/bin:/bin:/usr/sbin:/sbin
\t}}

\tenvironment = {{
{environment}\t\tXPC_SERVICE_NAME => {label}
\t}}

\tdomain = system
\tminimum runtime = 10
\texit timeout = 5
\truns = {runs}
{pid}\tlast exit code = {code}
\tproperties = inferred program
}}
"""


class FakeJob:
    """A job that was loaded."""

    def __init__(self, target: str, path: str, keys: dict[str, Any]) -> None:
        self.target, self.path, self.keys = target, path, keys
        self.runs, self.state, self.code = 0, "not running", "(never exited)"
        self.ends_in = 0
        if keys.get("RunAtLoad") or keys.get("KeepAlive") is True:
            self.start()

    def start(self) -> None:
        """Its program runs."""
        self.runs, self.state = self.runs + 1, "running"

    def end(self, code: str) -> None:
        """Its program has ended; one that is kept alive is about to be started again."""
        self.code = code
        self.state = "spawn scheduled" if self.keys.get("KeepAlive") is True else "not running"

    def page(self) -> str:
        """What `launchctl print` says of it."""
        words = [self.keys.get("Program"), *self.keys.get("ProgramArguments", ["/"])]
        running = self.state == "running"
        environment = self.keys.get("EnvironmentVariables", {})
        return PAGE.format(
            target=self.target, active=int(running), path=self.path, state=self.state, runs=self.runs, code=self.code,
            program=next(each for each in words if each), pid="\tpid = 4711\n" if running else "",
            arguments="".join(f"\t\t{each}\n" for each in (*words[1:], "state = not running")),
            environment="".join(f"\t\t{name} => {value}\n" for name, value in environment.items()),
            label=self.keys.get("Label", ""),
        )  # fmt: skip


class FakeLaunchd(FakeHost):
    """A host run by launchd. `says`: what launchctl answers instead, by command line; `domains`: those there are.

    `ends_in`: looks at it until a job that was booted out is gone; `frees_in`: bootstraps that are refused after that;
    `hangs`: labels that only SIGKILL ends.
    """

    def __init__(
        self,
        files: dict[str, Any],
        *,
        says: dict[str, Any] | None = None,
        login: int | None = None,
        ends_in: int = 0,
        frees_in: int = 0,
    ) -> None:
        user = {"name": "me", "uid": login, "home": "/Users/me"} if login else {}
        facts = {**FACTS, "user": {**FACTS["user"], **user}}
        answers = {**(says or {}), "podman **": Answer(missing=True), "profiles **": ENROLLED}
        answers.setdefault("sh -n", "")
        super().__init__(files=files, answers=answers, facts=facts)
        self.says = says or {}
        self.domains = {"system", *([f"gui/{login}", f"user/{login}"] if login else [])}
        self.ends_in, self.frees_in = ends_in, frees_in
        self.hangs: set[str] = set()
        self.busy: dict[str, int] = {}
        self.jobs: dict[str, FakeJob] = {}
        self.disabled: dict[str, dict[str, bool]] = {}

    async def run_process(self, spec: ProcessSpec, *args: Any, **named: Any) -> Any:
        line = " ".join(spec.argv)
        if spec.argv[0] == "launchctl" and line not in self.says:
            self._script._rows.insert(0, (list(spec.argv), [self.launchctl(*spec.argv[1:])]))
            try:
                return await super().run_process(spec, *args, **named)
            finally:
                self._script._rows.pop(0)
        return await super().run_process(spec, *args, **named)

    def launchctl(self, verb: str, *words: str) -> Answer:
        """Do what launchctl would, and answer as it does."""
        match verb, words:
            case "managername", ():
                return Answer.of("System\n" if self.domains == {"system"} else "Aqua\n")
            case "print-disabled", (domain,):
                rows = self.disabled.get(domain, {})
                lines = [f'\t"{label}" => {"disabled" if off else "enabled"}\n' for label, off in rows.items()]
                return Answer.of("disabled services = {\n" + "".join(lines) + "}\n")
            case "print", (where,) if where in self.domains:
                return Answer.of(f"{where} = {{\n\ttype = system\n}}\n")
            case "bootstrap", (domain, path):
                return self._bootstrap(domain, path)
            case (("enable" | "disable"), (target,)):
                domain, _, label = target.rpartition("/")
                self.disabled.setdefault(domain, {})[label] = verb == "disable"
                return Answer()
        target = words[-1] if words else ""
        job = self._present(target)
        if job is None:
            known = target.rpartition("/")[0] in self.domains
            text = f'Could not find service "{target.rpartition("/")[2]}" in domain for system\n'
            if verb == "bootout" and known:
                return Answer(exit_code=NO_PROCESS, stderr=b"Boot-out failed: 3: No such process\n")
            return Answer(exit_code=NOT_FOUND if known else NO_DOMAIN, stderr=text.encode())
        if verb == "bootout":
            return self._bootout(target, job)
        if verb == "kickstart" and ("-k" in words or job.state != "running"):
            job.start()
        elif verb == "kill":
            self.hangs.discard(job.keys["Label"])
            job.end("(never exited)")
        return Answer.of(job.page()) if verb == "print" else Answer()

    def _present(self, target: str) -> FakeJob | None:
        """The job, as long as it hasn't ended."""
        job = self.jobs.get(target)
        if job is not None and job.ends_in:
            job.ends_in -= 1
            if job.ends_in == 0:
                del self.jobs[target]
                self.busy[target] = self.frees_in
                return None
        return job

    def _bootout(self, target: str, job: FakeJob) -> Answer:
        if job.keys["Label"] in self.hangs:
            return Answer(exit_code=DENIED, stderr=b"Boot-out failed: 5: Input/output error\n")
        if self.ends_in:
            job.ends_in = job.ends_in or self.ends_in
            return Answer(exit_code=IN_PROGRESS, stderr=b"Boot-out failed: 36: Operation now in progress\n")
        del self.jobs[target]
        self.busy[target] = self.frees_in
        return Answer()

    def _bootstrap(self, domain: str, path: str) -> Answer:
        node = self.tree.nodes.get(path)
        if node is None or node.mode & 0o022:
            return Answer(exit_code=DENIED, stderr=b"Bootstrap failed: 5: Input/output error\n")
        keys = plistlib.loads(node.data)
        target = f"{domain}/{keys['Label']}"
        if domain not in self.domains:
            text = b"Bootstrap failed: 125: Domain does not support specified action\n"
            return Answer(exit_code=125, stderr=text)
        if self.busy.get(target, 0):
            self.busy[target] -= 1
            return Answer(exit_code=DENIED, stderr=b"Bootstrap failed: 5: Input/output error\n")
        if target in self.jobs:
            return Answer(exit_code=UNDER_WAY, stderr=b"Bootstrap failed: 37: Operation already in progress\n")
        if self.disabled.get(domain, {}).get(keys["Label"]):
            return Answer(exit_code=DISABLED, stderr=b"Bootstrap failed: 119: Service is disabled\n")
        self.jobs[target] = FakeJob(target, path, keys)
        return Answer()
