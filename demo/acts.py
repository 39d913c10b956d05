"""The acts of the demo, in order. Each does something with `opsexec`, then observes the hosts themselves."""

from __future__ import annotations

import json
import shutil

from demo.host import DemoHost
from demo.ledger import Ledger
from demo.stage import Stage


def three_hosts(stage: Stage, see: Ledger) -> None:
    """Three servers, each with a key of its own, none of them contacted yet."""
    keys = {host.sshd.host_fingerprint() for host in stage.hosts}
    see.observe("three SSH servers listen, each with a host key of its own", len(keys), 3)
    see.observe("nobody has connected to any of them yet", _connections(stage), [0, 0, 0])


def check_mode(stage: Stage, see: Ledger) -> None:
    """A check says what would change, having looked at every host, and changes nothing."""
    before = _digests(stage)
    done = stage.opsexec("run", stage.runbook, "--check", "--diff", "--yes")
    see.observe("a check ends with exit code 0", done.exit_code, 0)
    see.observe("it predicts a change on each host", done.line("run ", "3 changed") != "", True)
    see.observe("it shows the line that it would write", "+version=1.0.0" in done.said, True)
    see.observe("it has logged in to each host once (their own logs)", _logins(stage), [1, 1, 1])
    see.observe("and no file, mode or time on any host has changed", _digests(stage), before)


def failure(stage: Stage, see: Ledger) -> str:
    """A real run, with something broken on web2; returns the run's id."""
    web1, web2, web3 = stage.hosts
    untouched, contacts = web3.digest(), web3.sshd.connections_accepted()
    (web2.root / "run").write_text("in the way\n")
    print("  (web2 gets broken on purpose: a file stands where the runbook makes a directory)")
    done = stage.opsexec("run", stage.runbook, "--diff")
    see.observe("a run with a failed host ends with exit code 1", done.exit_code, 1)
    see.observe("web1 (dev) serves the release over the network", web1.page(), _page(web1))
    see.observe("web2 (staging) failed at the broken step, and the run says why",
                "not a directory" in done.line("web2 | run directory: failed"), True)  # fmt: skip
    see.observe("web2's service was not started", web2.daemon(), None)
    see.observe("web3 (prod) was held back: nobody connected to it", web3.sshd.connections_accepted(), contacts)
    see.observe("and nothing on it has changed", web3.digest(), untouched)
    return done.run


def resume(stage: Stage, see: Ledger, run: str) -> None:
    """Mended, resumed: web1 is left alone, web2 goes on after its last good step, web3 waits for approval."""
    web1, web2, web3 = stage.hosts
    (web2.root / "run").unlink()
    finished, contacts, untouched = web1.sshd.log_offset(), web3.sshd.connections_accepted(), web3.digest()
    print("  (web2 is mended)")
    done = stage.opsexec("run", stage.runbook, "--resume", run)
    see.observe("the resumed run didn't go to web1 again: its log has nothing new", web1.sshd.log_since(finished), "")
    see.observe("web2 has the release now", web2.page(), _page(web2))
    see.observe("its migration, done before the failure, was not run again", _migrations(web2), 1)
    see.observe("prod needs a person's yes: the run stops before it with exit code 3", done.exit_code, 3)
    see.observe("and nobody connected to web3", web3.sshd.connections_accepted(), contacts)
    see.observe("nor has anything on it changed", web3.digest(), untouched)
    done = stage.opsexec("run", stage.runbook, "--resume", run, "--yes")
    see.observe("approved, the run ends with exit code 0", done.exit_code, 0)
    see.observe("every host serves the release", [host.page() for host in stage.hosts], list(map(_page, stage.hosts)))
    see.observe("every migration ran once", list(map(_migrations, stage.hosts)), [1, 1, 1])


def second_run(stage: Stage, see: Ledger) -> None:
    """The same runbook once more: everything is already so."""
    before, daemons = _digests(stage), [host.daemon() for host in stage.hosts]
    done = stage.opsexec("run", stage.runbook, "--yes", "--json", quiet=True)
    report = done.json()
    print(f"    totals: {json.dumps(report['totals'])}")
    steps = [step for host in report["hosts"].values() for step in host["steps"]]
    see.observe("a second run ends with exit code 0", done.exit_code, 0)
    see.observe("it reports all three hosts as ok, none as changed",
                [report["totals"]["ok"], report["totals"]["changed"]], [3, 0])  # fmt: skip
    see.observe("none of its steps changed anything", [s["name"] for s in steps if s["changed"]], [])
    see.observe("no file, mode or time on any host has changed", _digests(stage), before)
    see.observe("and the services are the same processes as before", [h.daemon() for h in stage.hosts], daemons)
    see.observe("which do run", None in daemons, False)


def denied(stage: Stage, see: Ledger) -> None:
    """A step that no host grants: refused before anything is opened. The same log shows a step that is granted."""
    offsets = [host.sshd.log_offset() for host in stage.hosts]
    done = stage.opsexec("run", stage.runbook, "--tags", "forbidden", "--yes")
    lines = [done.line(f"{host.name} | not granted: failed", "denied by the caller") for host in stage.hosts]
    see.observe("the step that no host grants is denied on all three", [line != "" for line in lines], [True] * 3)
    logs = [host.sshd.log_since(offset) for host, offset in zip(stage.hosts, offsets, strict=True)]
    see.observe("it never got there: the hosts' own SSH logs have not one new line", logs, ["", "", ""])
    there = [host.name for host in stage.hosts if (host.root / "was-here").exists()]
    see.observe("nor has it run in any run before: what it makes is on no host", there, [])
    done = stage.opsexec("exec", "all", "--", "/usr/bin/touch", "/tmp/anything")
    see.observe("asked for by itself it is denied too: exit code 3", done.exit_code, 3)
    logs = [host.sshd.log_since(offset) for host, offset in zip(stage.hosts, offsets, strict=True)]
    see.observe("and again the logs have not one new line", logs, ["", "", ""])
    counts = _logins(stage)
    done = stage.opsexec("exec", "all", "--", "/usr/bin/uptime")
    see.observe("a granted step runs: exit code 0", done.exit_code, 0)
    see.observe("and the same logs show its login, one a host", _logins(stage), [count + 1 for count in counts])


def secret(stage: Stage, see: Ledger) -> None:
    """The token that the runbook carried is on the hosts, readable by its owner, and nowhere else."""
    wanted = [(stage.token, "0600")] * 3
    see.observe("the secret is on each host, mode 0600",
                [(host.read("etc/token"), host.mode("etc/token")) for host in stage.hosts], wanted)  # fmt: skip
    journals = "".join(file.read_text() for file in stage.journals.glob("*.jsonl"))
    logs = "".join(host.sshd.log() for host in stage.hosts)
    places = {
        "the audit": stage.audit.read_text(), "the journals": journals,
        "what opsexec printed": stage.opsexec.heard, "the hosts' logs": logs,
    }  # fmt: skip
    see.observe("all of these were written to", [name for name, text in places.items() if not text], [])
    see.observe("the secret is in none: audit, journals, opsexec's output, the hosts' SSH logs",
                [name for name, text in places.items() if stage.token in text], [])  # fmt: skip


def audit(stage: Stage, see: Ledger) -> None:
    """The audit holds every decision and is whole; a copy with one byte changed is found out."""
    done = stage.opsexec("audit", "verify")
    see.observe("the audit chain is whole", done.exit_code, 0)
    records = [json.loads(line) for line in stage.audit.read_text().splitlines()]
    denials = [record["host"] for record in records if record["decision"] == "deny"]
    # Each run that reached the step, the run of the step alone, and the exec.
    see.observe("it holds a denial for every time the forbidden step was asked for",
                sorted(denials), sorted(["web1", "web2", "web3"] * 4 + ["web1", "web2", "web3"]))  # fmt: skip
    allowed = [record["run"] for record in records if record["decision"] == "allow"]
    ended = [record["run"] for record in records if record["outcome"] is not None and record["decision"] is None]
    see.observe("and for each step that was allowed, how it ended", sorted(ended), sorted(allowed))
    copy = stage.directory / "forged.jsonl"
    shutil.copy(stage.audit, copy)
    data = bytearray(copy.read_bytes())
    at = data.index(b"app.migrate")
    data[at + 4] ^= 1
    copy.write_bytes(data)
    line = data[:at].count(b"\n") + 1
    print(f"  (one bit is changed in line {line} of a copy of it)")
    done = stage.opsexec("audit", "verify", str(copy))
    see.observe("verify finds the forged copy out: exit code 1", done.exit_code, 1)
    see.observe(f"and names the line, {line}", f"{copy}:{line}:" in done.said, True)


def _page(host: DemoHost) -> str:
    return f"<!doctype html>\n<title>demo</title>\n<p>Release 1.0.0 on {host.name}.</p>\n"


def _migrations(host: DemoHost) -> int:
    return (host.read("var/migrations.log") or "").count("migrated")


def _digests(stage: Stage) -> list[str]:
    return [host.digest() for host in stage.hosts]


def _connections(stage: Stage) -> list[int]:
    return [host.sshd.connections_accepted() for host in stage.hosts]


def _logins(stage: Stage) -> list[int]:
    return [host.sshd.logins() for host in stage.hosts]
