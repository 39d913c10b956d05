"""Which program runs, where, and with which variables: the step decides, never the caller's shell."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from opsexec import CapabilityDenied, Exec, Shell, StepFailed
from opsexec.errors import BadStep, ProgramNotFound
from opsexec.far.launch import KEPT, SEARCH_PATH
from opsexec.steps.text import MAX_WORDS
from tests.conftest import require
from tests.parts.targets import Target

pytestmark = pytest.mark.anyio


def variables(output: bytes) -> dict[str, str]:
    """What `env -0` printed."""
    return dict(pair.split("=", 1) for pair in os.fsdecode(output).split("\0") if pair)


async def test_a_program_gets_a_minimal_environment(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLERS_OWN", "not for steps")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/nowhere")
    async with target.connect() as ex:
        env = variables((await ex.run(Exec(argv=("env", "-0")))).stdout)
    assert set(env) <= {*KEPT, "PATH", "OPSEXEC_RUN"}
    assert env["PATH"] == SEARCH_PATH
    assert env["HOME"] == target.home


async def test_a_steps_variables_arrive_byte_for_byte(target: Target) -> None:
    wanted = {
        "EMPTY": "",
        "SPACED": " a  b ",
        "LINES": "x\ny",
        "QUOTED": "'\"$HOME`id`\\",
        "BYTES": "\udcff\udcfe",
    }
    async with target.connect() as ex:
        env = variables((await ex.run(Exec(argv=("env", "-0"), env=wanted))).stdout)
    assert {name: env[name] for name in wanted} == wanted


async def test_words_arrive_byte_for_byte(target: Target) -> None:
    words = ("", " ", "a b", "*", "$HOME", "`id`", "'", '"', "\\", "\n", "-n", "--", "\udcff\udc80", "ß€😀")
    async with target.connect() as ex:
        output = await ex.run(Exec(argv=("printf", "%s\\0", *words)))
    assert output.stdout.split(b"\0")[:-1] == [os.fsencode(word) for word in words]


async def test_a_hundred_thousand_words_are_passed(target: Target) -> None:
    async with target.connect() as ex:
        output = await ex.run(Exec(argv=("/bin/sh", "-c", "echo $#", "t", *["a"] * (MAX_WORDS - 4))))
    assert output.stdout == b"99996\n"


async def test_more_words_than_the_kernel_takes_are_a_typed_error(target: Target) -> None:
    async with target.connect() as ex:
        with pytest.raises(StepFailed, match="Argument list too long"):
            await ex.run(Exec(argv=("true",), env={f"V{n}": "x" * 100_000 for n in range(30)}))
        assert (await ex.run(Exec(argv=("true",)))).ok


async def test_a_variable_that_decides_which_code_is_loaded_needs_its_own_grant(target: Target) -> None:
    step = Exec(argv=("/usr/bin/env",), env={"LD_PRELOAD": ""})
    async with target.connect("exec:/usr/bin/env") as ex:
        with pytest.raises(CapabilityDenied, match="env:LD_PRELOAD"):
            await ex.run(step)
    async with target.connect("exec:/usr/bin/env", "env:LD_PRELOAD") as ex:
        assert b"LD_PRELOAD=\n" in (await ex.run(step)).stdout


async def test_a_program_starts_in_the_home_directory_or_where_the_step_says(target: Target, shared_dir: Path) -> None:
    async with target.connect() as ex:
        assert (await ex.run(Exec(argv=("/bin/pwd",)))).text.strip() == os.path.realpath(target.home)
        assert (await ex.run(Exec(argv=("/bin/pwd",), cwd="/usr/bin/.."))).text.strip() == "/usr"
        assert (await ex.run(Exec(argv=("/bin/pwd",), cwd=str(shared_dir)))).text.strip() == str(shared_dir)


async def test_a_working_directory_that_is_none_is_a_typed_error(target: Target, shared_dir: Path) -> None:
    async with target.connect() as ex:
        for place, why in (("/nowhere/at/all", "No such file"), ("/etc/passwd", "Not a directory")):
            with pytest.raises(StepFailed, match=why) as caught:
                await ex.run(Exec(argv=("true",), cwd=place))
            assert place in caught.value.message
            assert "cwd" in (caught.value.hint or "")
        assert (await ex.run(Exec(argv=("true",)))).ok


async def test_a_home_that_does_not_exist_is_no_reason_to_fail(local: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/nonexistent")
    async with local.connect() as ex:
        assert (await ex.run(Exec(argv=("/bin/pwd",)))).text == "/\n"


async def test_a_program_in_no_known_format_is_a_typed_error(target: Target, shared_dir: Path) -> None:
    for name, text in (("empty", ""), ("words", "echo hi\n"), ("lost", "#!/no/such/interpreter\n")):
        program = shared_dir / name
        program.write_text(text)
        program.chmod(0o755)
        async with target.connect() as ex:
            with pytest.raises(StepFailed, match="can't start") as caught:
                await ex.run(Exec(argv=(str(program),)))
        assert str(program) in caught.value.message


async def test_what_is_no_program_is_a_typed_error(target: Target, shared_dir: Path) -> None:
    plain = shared_dir / "plain"
    plain.write_text("#!/bin/sh\n")
    async with target.connect() as ex:
        for place in (plain, shared_dir):
            with pytest.raises(StepFailed, match="not an executable file"):
                await ex.run(Exec(argv=(str(place),)))
        with pytest.raises(ProgramNotFound):
            await ex.run(Exec(argv=(str(shared_dir / "absent"),)))


async def test_the_callers_path_has_no_say(target: Target, shared_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trap = shared_dir / "true"
    trap.write_text("#!/bin/sh\necho trapped\n")
    trap.chmod(0o755)
    monkeypatch.setenv("PATH", f"{shared_dir}:{os.environ['PATH']}")
    async with target.connect() as ex:
        assert (await ex.run(Exec(argv=("true",)))).stdout == b""


async def test_a_steps_path_does_not_choose_the_program(target: Target, shared_dir: Path) -> None:
    trap = shared_dir / "env"
    trap.write_text("#!/bin/sh\necho trapped\n")
    trap.chmod(0o755)
    async with target.connect("exec:/usr/bin/env", "env:PATH") as ex:
        output = await ex.run(Exec(argv=("env",), env={"PATH": str(shared_dir)}))
    assert f"PATH={shared_dir}\n".encode() in output.stdout


async def test_a_bare_name_that_is_another_program_here_is_denied_by_the_host(
    target: Target, first_on_path: Path
) -> None:
    """The grant admits /usr/bin/NAME; on this host the name means the one in /usr/local/bin."""
    granted = f"exec:/usr/bin/{first_on_path.name}"
    async with target.connect(granted) as ex:
        with pytest.raises(CapabilityDenied, match=str(first_on_path)) as caught:
            await ex.run(Exec(argv=(first_on_path.name,)))
    assert caught.value.layer == "host"
    async with target.connect(f"exec:{first_on_path}") as ex:
        assert (await ex.run(Exec(argv=(first_on_path.name,)))).text == "first\n"


@pytest.fixture
def first_on_path() -> Iterator[Path]:
    """A program of the test's own in the first directory that is searched, removed again."""
    directory = Path("/usr/local/bin")
    require(os.access(directory, os.W_OK), "needs root: it puts a program into /usr/local/bin")
    program = directory / f"opsexec-test-{os.getpid()}"
    program.write_text("#!/bin/sh\necho first\n")
    program.chmod(0o755)
    try:
        yield program
    finally:
        program.unlink()


async def test_dots_in_a_program_are_resolved_before_the_grant_is_asked(target: Target) -> None:
    async with target.connect("exec:/usr/bin/**") as ex:
        with pytest.raises(CapabilityDenied, match="exec:/bin/true"):
            await ex.run(Exec(argv=("/usr/bin/../../bin/true",)))
        assert (await ex.run(Exec(argv=("/usr/bin/./../bin//true",)))).ok


async def test_a_program_relative_to_a_directory_is_refused(target: Target) -> None:
    async with target.connect() as ex:
        for argv0 in ("bin/true", "./true", "../true", "~/true"):
            with pytest.raises(BadStep, match="relative"):
                await ex.run(Exec(argv=(argv0,)))


async def test_a_link_is_the_program_it_is_named_as(target: Target, shared_dir: Path) -> None:
    """A grant names the path that is started: what stands behind a link there is the host's business."""
    link = shared_dir / "say"
    link.symlink_to("/bin/echo")
    async with target.connect(f"exec:{link} hi") as ex:
        assert (await ex.run(Exec(argv=(str(link), "hi")))).text == "hi\n"
        with pytest.raises(CapabilityDenied):
            await ex.run(Exec(argv=("/bin/echo", "hi")))


async def test_words_beyond_the_grant_are_denied(target: Target) -> None:
    async with target.connect("exec:/bin/echo a*") as ex:
        assert (await ex.run(Exec(argv=("/bin/echo", "abc")))).text == "abc\n"
        for argv in (("/bin/echo",), ("/bin/echo", "b"), ("/bin/echo", "a", "b"), ("/bin/echo", "")):
            with pytest.raises(CapabilityDenied):
                await ex.run(Exec(argv=argv))


async def test_a_pinned_script_runs_and_another_is_denied(target: Target) -> None:
    step = Shell(action="site.greet", script="echo hi")
    async with target.connect(f"shell:site.greet@sha256:{step.digest}") as ex:
        assert (await ex.run(step)).text == "hi\n"
        with pytest.raises(CapabilityDenied):
            await ex.run(Shell(action="site.greet", script="echo hi; id"))
