"""Commands around a living bottle: programs beside its agent, and a terminal that is the bottle's own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bottle.dns import NAMES
from opsexec.audit import verify
from tests.integration.cli_terminal import on_terminal
from tests.parts.bottle_engine import DOCKERFILE, BottleEngine
from tests.parts.bottle_manifests import HomeRoot
from tests.parts.bottle_running import HELD, Bottles, gone, require_bottles
from tests.parts.upstream_tls import Upstream
from tests.parts.waiting import eventually_now

BOTTLE = """env:
  HELD: ${MY_HELD}
egress:
  routes:
    - host: open.test
      pipelock: {ssrf_ip_allowlist: [127.0.0.7]}
"""


@dataclass
class Living:
    """A bottle whose agent sleeps."""

    bottles: Bottles
    identity: str

    def exec(self, *argv: str, given: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.bottles.argv("exec", self.identity, "--", *argv),
            env=self.bottles.environ(), input=given, capture_output=True, text=True, timeout=40, check=False,
        )  # fmt: skip


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    require_bottles()
    with Upstream(tmp_path_factory.mktemp("upstream"), ("open.test",)) as running:
        yield running


def bottles_at(path: Path, upstream: Upstream) -> Bottles:
    root = HomeRoot(path / "home")
    root.bottle("dev", BOTTLE)
    root.agent("worker", "bottle: dev\n")
    return Bottles(root, upstream)


@pytest.fixture(scope="module")
def living(tmp_path_factory: pytest.TempPathFactory, upstream: Upstream) -> Iterator[Living]:
    bottles = bottles_at(tmp_path_factory.mktemp("living"), upstream)
    launcher = bottles.begin("worker", ["/bin/sh", "-c", "echo agent > note; sleep 600"])
    try:
        (row,) = json.loads(bottles.command("list", "--json").stdout)["bottles"]
        yield Living(bottles, row["identity"])
    finally:
        launcher.terminate()
        launcher.communicate(timeout=20)


def test_a_program_beside_the_agent_has_its_home_its_environment_and_its_doors(living: Living) -> None:
    fetch = "import urllib.request as u; print(u.urlopen('https://open.test/x').status)"
    done = living.exec(
        "/bin/sh", "-c", f'cat note; cat; echo $HELD; python3 -c "{fetch}"; echo err >&2; exit 7', given="in\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (7, f"agent\nin\n{HELD}\n200\n", "err\n")


def test_it_has_no_more_than_the_agent(living: Living) -> None:
    done = living.exec(
        "/bin/sh", "-c", "ls /run/bottle/doors; ls -d /root /run/bottle/control.sock; cat /proc/net/route"
    )
    assert done.stdout.splitlines()[0] == "egress.sock"
    assert "/root" not in done.stdout
    assert len([line for line in done.stdout.splitlines() if line.startswith("Iface")]) == 1


def test_names_of_sidecars_are_known_and_every_other_is_none_at_once(living: Living) -> None:
    """As on Docker, whose bundle resolves them itself; one that nobody answers costs 5 s (resolv.conf(5), timeout)."""
    lines = """
import socket, time, urllib.request
for name in NAMES:
    print(socket.gethostbyname(name))
begun = time.monotonic()
for name in ("open.test", "a.egress", "localhost.localdomain", "host.docker.internal"):
    try:
        print(socket.getaddrinfo(name, 443))
    except socket.gaierror as error:
        print(error.errno == socket.EAI_NONAME)
print(time.monotonic() - begun < 4.5)
proxy = urllib.request.ProxyHandler({"https": "http://egress:8877"})
print(urllib.request.build_opener(proxy).open("https://open.test/x").status)
"""
    done = living.exec("/usr/bin/python3", "-c", f"NAMES = {NAMES}\n{lines}")
    assert done.stdout.split() == ["127.0.0.1"] * len(NAMES) + ["True"] * 5 + ["200"], done.stderr


def test_what_it_does_is_in_the_bottle_s_audit(living: Living) -> None:
    assert living.exec("/bin/echo", "a-word-of-its-own").stdout == "a-word-of-its-own\n"
    log = living.bottles.state(living.identity) / "audit.jsonl"
    assert "a-word-of-its-own" in log.read_text()
    assert verify(log).ok


def test_whoever_asked_and_goes_takes_the_program_along(living: Living) -> None:
    argv = living.bottles.argv("exec", living.identity, "--", "/bin/sleep", "4711")
    asker = subprocess.Popen(argv, env=living.bottles.environ(), stdin=-1, stdout=-1, stderr=-1)
    # Its words are on argvs outside as well; the sleeper's own is what it was asked to be.
    sleeper = b"/bin/sleep\x004711\x00"
    eventually_now(lambda: any(_argv_is(sleeper)), within_s=20, what="it sleeps")
    asker.kill()
    asker.communicate(timeout=10)
    eventually_now(lambda: not any(_argv_is(sleeper)), within_s=10, what="it is gone")


def test_whoever_asked_takes_it_along_also_when_it_reads_nothing(living: Living) -> None:
    """What isn't read fills every buffer on the way, and the end of the connection stands behind it."""
    argv = living.bottles.argv("exec", living.identity, "--", "/bin/sleep", "4713")
    with open("/dev/zero", "rb") as endless:
        asker = subprocess.Popen(argv, env=living.bottles.environ(), stdin=endless, stdout=-1, stderr=-1)
    sleeper = b"/bin/sleep\x004713\x00"
    eventually_now(lambda: any(_argv_is(sleeper)), within_s=20, what="it sleeps")
    given = [-1]

    def stands_still() -> bool:
        given.append(int(Path(f"/proc/{asker.pid}/io").read_text().split()[1]))
        return given[-1] > 4 << 20 and len(given) > 20 and len(set(given[-20:])) == 1

    eventually_now(stands_still, within_s=20, what="no more of its input is taken")
    asker.kill()
    asker.communicate(timeout=10)
    eventually_now(lambda: not any(_argv_is(sleeper)), within_s=3, what="it is gone")


def _argv_is(text: bytes) -> Iterator[Path]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if (entry / "cmdline").read_bytes() == text:
                    yield entry
            except OSError:
                continue


def test_it_ends_with_its_bottle(upstream: Upstream, tmp_path: Path) -> None:
    bottles = bottles_at(tmp_path, upstream)
    launcher = bottles.begin("worker", ["/bin/sleep", "600"])
    (row,) = json.loads(bottles.command("list", "--json").stdout)["bottles"]
    identity = row["identity"]
    argv = bottles.argv("exec", identity, "--", "/bin/sh", "-c", "echo up; exec sleep 4712")
    beside = subprocess.Popen(argv, env=bottles.environ(), stdin=subprocess.DEVNULL, stdout=-1, stderr=-1, text=True)
    assert beside.stdout is not None
    assert beside.stdout.readline() == "up\n"
    assert bottles.command("stop", identity).returncode == 0
    launcher.communicate(timeout=20)
    _, said = beside.communicate(timeout=20)
    assert (beside.returncode, f"{identity} ended" in said) == (1, True)
    gone(identity.encode())
    assert "isn't running" in bottles.command("exec", identity, "--", "/bin/true").stderr


def test_a_bottle_that_isn_t_there_is_a_sentence(living: Living) -> None:
    done = living.bottles.command("exec", "worker-00000000", "--", "/bin/true")
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)


def test_an_agent_s_terminal_is_one_of_the_bottle_s_own(upstream: Upstream, tmp_path: Path) -> None:
    """ES10: keys, sizes and job control reach it; the operator's own terminal is nowhere in its reach."""
    bottles = bottles_at(tmp_path, upstream)
    cast = tmp_path / "session.cast"
    argv = bottles.argv("start", "worker", "-y", "--record", str(cast), "--", "/bin/sh", "-i")
    with on_terminal(argv, cwd=tmp_path, env={**bottles.environ(), "TERM": "xterm"}) as person:
        before = person.settings()
        person.sees(" is running")
        person.sees(r"\$ ")
        person.types("tty; stty size; echo $TERM; ls /dev/pts\n")
        person.sees(r"/dev/pts/0\r\n30 90\r\nxterm\r\n0")
        person.resizes(100, 40)
        person.types("sleep 1; stty size\n")
        person.sees(r"40 100\r\n")
        person.sees(r"\$ ")
        person.types("cat\n")
        person.sees(r"cat\r\n")
        person.types("there\n")
        person.sees(r"there\r\nthere\r\n")  # its echo, and cat's
        person.types("\x1a")
        person.sees("Stopped|suspended")
        person.sees(r"\$ ")
        person.types("fg\n")
        person.sees(r"\r\ncat\r\n")
        person.types("again\n")
        person.sees(r"again\r\nagain\r\n")
        person.types("\x03")
        person.sees(r"\$ ")
        person.types("printf 'a\\033]52;c;YQ==\\007b\\033[6nc\\n'; exit 3\n")
        person.sees(r"\r\nabc\r\n")
        assert person.leaves() == 3
        assert person.settings() == before
    lines = [json.loads(line) for line in cast.read_text().splitlines()]
    assert (lines[0]["version"], lines[0]["term"]["cols"]) == (3, 90)
    assert ["r", "100x40"] in [line[1:] for line in lines[1:]]


def test_typing_into_the_terminal_from_inside_types_into_the_bottle_s_own(upstream: Upstream, tmp_path: Path) -> None:
    """ES10: TIOCSTI, where the kernel and the filter let it, reaches the terminal inside and no other."""
    bottles = bottles_at(tmp_path, upstream)
    typed = "touch escaped-to-the-host\n"
    script = f"import fcntl, termios\nfor each in {typed!r}:\n    fcntl.ioctl(0, termios.TIOCSTI, each.encode())"
    with on_terminal(
        bottles.argv("start", "worker", "-y", "--", "/usr/bin/python3", "-c", script),
        cwd=tmp_path, env=bottles.environ(),
    ) as person:  # fmt: skip
        person.leaves(40)
        shell = subprocess.run(["timeout", "1", "cat"], stdin=person.other, capture_output=True, check=False)
    assert shell.stdout == b""
    assert not (tmp_path / "escaped-to-the-host").exists()


def test_a_program_beside_the_agent_gets_a_terminal_where_there_is_one(living: Living, tmp_path: Path) -> None:
    argv = living.bottles.argv(
        "exec", living.identity, "--", "/bin/sh", "-c", "tty; stty size; read line; echo got $line"
    )
    with on_terminal(argv, cwd=tmp_path, env=living.bottles.environ(), columns=70, rows=20) as person:
        person.sees(r"/dev/pts/0\r\n20 70\r\n")
        person.types("hello\n")
        person.sees("got hello")
        assert person.leaves() == 0


def test_verify_tries_what_an_agent_would_and_none_of_it_works(living: Living) -> None:
    before = len(living.bottles.audit(living.identity))
    done = living.bottles.command("verify", living.identity, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert (found["held"], found["audit"], len(found["attempts"]) >= 30) == (True, True, True)

    def refused() -> set[str]:
        since = living.bottles.audit(living.identity)[before:]
        return {each["step"].get("host") for each in since if each["decision"] == "deny"}

    # The launcher, another process, writes it down as it reads the gate's line.
    eventually_now(lambda: refused() >= {"verify.bottle.invalid", "127.0.0.1"}, within_s=10, what="they are audited")


def test_an_audit_that_was_changed_is_told_as_such(upstream: Upstream, tmp_path: Path) -> None:
    """LG3."""
    bottles = bottles_at(tmp_path, upstream)
    identity = bottles.run("worker", ["/bin/true"]).identity
    log = bottles.state(identity) / "audit.jsonl"
    assert bottles.command("audit", identity).returncode == 0
    log.write_text(log.read_text().replace('"granted"', '"GRANTED"', 1))
    done = bottles.command("audit", identity)
    assert (done.returncode, "hash" in done.stdout) == (1, True)


def test_the_audit_is_shown_with_what_was_refused(living: Living) -> None:
    living.exec("/usr/bin/python3", "-c", "import urllib.request as u; u.urlopen('https://evil.test/')")
    done = living.bottles.command("audit", living.identity, "--refused")
    assert done.returncode == 0
    assert any("deny" in line and "evil.test" in line for line in done.stdout.splitlines())
    whole = json.loads(living.bottles.command("audit", living.identity, "--json").stdout)
    assert whole["whole"]
    assert any(
        record["step"] and record["step"]["type"] == "sandbox_run" for record in whole["records"] if "step" in record
    )


def test_doctor_says_what_is_there_and_what_lacks_with_a_hint(living: Living, tmp_path: Path) -> None:
    done = living.bottles.command("doctor", "--json")
    found = json.loads(done.stdout)
    assert (done.returncode, found["ready"]["bwrap"]) == (0, True)
    living.bottles.env.update(BOTTLE_EGRESS_ENV=str(tmp_path), DOCKER_HOST=f"unix://{tmp_path}/none.sock")
    try:
        lacking = living.bottles.command("doctor", "--json")
        found = json.loads(lacking.stdout)
        assert (lacking.returncode, found["ready"]) == (1, {"bwrap": False, "docker": False, "smolmachines": False})
        lacks = [each for each in found["checks"] if not each["ok"] and each["needed"]]
        assert {each["what"] for each in lacks} >= {"the egress gate's environment", "an engine"}
        assert all(each["hint"] for each in lacks)
    finally:
        living.bottles.env.clear()


def test_the_shell_is_offered_commands_agents_bottles_and_options(living: Living) -> None:
    def offered(*words: str) -> list[str]:
        return living.bottles.command("_complete", "--", *words).stdout.splitlines()

    assert offered("st") == ["start", "stop"]
    assert offered("start", "w") == ["worker"]
    assert offered("exec", "") == [living.identity]
    assert offered("start", "worker", "--backend", "d") == ["docker"]
    assert "--cwd" in offered("start", "worker", "--c")
    assert offered("start", "worker", "--", "x") == []
    for shell in ("bash", "zsh", "fish"):
        assert "_complete" in living.bottles.command("completion", shell).stdout


def test_bash_completes_with_the_script(living: Living, tmp_path: Path) -> None:
    script = living.bottles.command("completion", "bash").stdout
    wrapper = tmp_path / "bottle"
    wrapper.write_text("#!/bin/sh\nexec " + " ".join(living.bottles.argv()) + ' "$@"\n')
    wrapper.chmod(0o755)
    asked = f'{script}\nCOMP_WORDS=(bottle exec work); COMP_CWORD=2; _bottle; echo "${{COMPREPLY[@]}}"'
    env = {**living.bottles.environ(), "PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run(["bash", "-c", asked], env=env, capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout.strip() == living.identity


def test_a_bottle_on_docker_has_them_all(bottle_engine: BottleEngine, upstream: Upstream, tmp_path: Path) -> None:
    bottles = bottles_at(tmp_path, upstream)
    bottles.engine = bottle_engine
    provider = "agent_provider: {template: command, dockerfile: agent.Dockerfile}\n"
    bottles.root.bottle("dev", BOTTLE + provider)
    (bottles.root.path / "agent.Dockerfile").write_text(DOCKERFILE)
    bottles.cwd = tmp_path / "project"
    bottles.cwd.mkdir()
    (bottles.cwd / "file").write_text("before\n")
    script = "echo after > file; echo x > CLAUDE.md; exec sleep 600"
    launcher = bottles.begin("worker", ["/bin/sh", "-c", script], "--cwd")
    try:
        (row,) = json.loads(bottles.command("list", "--json").stdout)["bottles"]
        living = Living(bottles, row["identity"])
        done = living.exec("/bin/sh", "-c", "cat; cat file; exit 4", given="given\n")
        assert (done.returncode, done.stdout) == (4, "given\nafter\n"), done.stderr
        argv = bottles.argv("exec", living.identity, "--", "/bin/sh", "-c", "stty size; read line; echo got $line")
        with on_terminal(argv, cwd=tmp_path, env=bottles.environ(), columns=70, rows=20) as person:
            person.sees(r"20 70\r\n")
            person.types("hello\n")
            person.sees("got hello")
            assert person.leaves() == 0
        diff = bottles.command("diff", living.identity)
        assert ("+after" in diff.stdout, "held back: CLAUDE.md" in diff.stderr) == (True, True), diff.stderr
        verified = bottles.command("verify", living.identity)
        assert verified.returncode == 0, verified.stdout
    finally:
        launcher.terminate()
        launcher.communicate(timeout=40)
