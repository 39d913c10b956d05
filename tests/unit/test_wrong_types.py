"""What Python lets through, and what would be misread or fail later in words of the library's own insides."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from opsexec import BadStep, CapabilitySet, Exec, Push, Secret, Shell, SyncOpts, UsageError, WriteFile, connect

ALL = CapabilitySet.everything()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Exec(["id"], timeout_s="3"), "timeout_s '3' is not a positive number of seconds"),  # type: ignore[arg-type]  # wrong on purpose
        (lambda: Exec(["id"], run_as=5), "run_as '5' is not a user name"),  # type: ignore[arg-type]  # wrong on purpose
        (lambda: WriteFile("/x", content=b"x"), "content is no text"),  # type: ignore[arg-type]  # wrong on purpose
        (lambda: connect("ssh://x", capabilities=["exec:**"]), "capabilities is no CapabilitySet"),  # type: ignore[arg-type]  # wrong on purpose
        (lambda: connect(5, capabilities=ALL), "the URL 5 is no text"),  # type: ignore[arg-type]  # wrong on purpose
        (lambda: CapabilitySet.of(["exec:**"]), "['exec:**'] is no capability's text"),  # type: ignore[arg-type]  # wrong on purpose
        (lambda: CapabilitySet.of("exec:**", max_timeout_s="5"), "limit '5' is not a positive number"),  # type: ignore[arg-type]  # wrong on purpose
        (lambda: Exec(["id"], cwd=Path("/tmp")), "cwd is a path object, not text"),  # type: ignore[arg-type]  # wrong on purpose
        (lambda: Exec(["id"], env={"A": Path("/tmp")}), "env is a path object, not text"),  # type: ignore[dict-item]  # wrong on purpose
        (lambda: Exec(["id"], env={"A": 1}).requires(), "the environment's 'A' is no text, or its value isn't"),  # type: ignore[dict-item]  # wrong on purpose
        (lambda: Exec(["id"], env=["A=1"]).requires(), "env is no map of names to values"),  # type: ignore[arg-type]  # wrong on purpose
        (lambda: Exec(["cat"], stdin=b"x").requires(), "stdin is no text"),  # type: ignore[arg-type]  # wrong on purpose
        (lambda: Exec(["cat"], stdin=Secret(5)), "stdin is a Secret that holds no text"),  # type: ignore[arg-type]  # wrong on purpose
        (lambda: Shell("a", None), "the action or the script is no text"),  # type: ignore[arg-type]  # wrong on purpose
        (lambda: WriteFile(5, content="x"), "path 5 is no text"),  # type: ignore[arg-type]  # wrong on purpose
        (lambda: WriteFile(Path("/x"), content="x"), "path is a path object, not text"),  # type: ignore[arg-type]  # wrong on purpose
        (lambda: WriteFile("/x", content="x", mode=0o644), "mode 420 is not octal"),  # type: ignore[arg-type]  # wrong on purpose
        (lambda: Push("a", "/b", excludes="*.tmp"), "excludes is one text, not a list of patterns"),  # type: ignore[arg-type]  # wrong on purpose
        (lambda: connect("local:", capabilities=None), "capabilities is no CapabilitySet"),  # type: ignore[arg-type]  # wrong on purpose
        (lambda: connect("ssh://x", capabilities=ALL, host_keys="accept_new"), "host_keys is 'accept_new'"),  # type: ignore[arg-type]  # wrong on purpose
    ],
)  # fmt: skip
def test_a_wrong_type_is_named_where_it_is_given(make: Callable[[], object], message: str) -> None:
    with pytest.raises((UsageError, BadStep)) as caught:
        make()
    assert caught.value.message == message
    assert caught.value.hint


@pytest.mark.anyio
@pytest.mark.parametrize("given", ["id", Exec, None])
async def test_what_is_no_step_is_refused_before_anything_is_asked(given: object) -> None:
    async with connect("local:", capabilities=ALL) as ex:
        with pytest.raises(BadStep, match="is no Step"):
            await ex.run(given)  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.anyio
async def test_one_pattern_alone_never_leaves_out_everything_there_is(tmp_path: Path) -> None:
    async with connect("local:", capabilities=ALL) as ex:
        with pytest.raises(BadStep, match="excludes is one text"):
            await ex.push(f"{tmp_path}/", "/nowhere", SyncOpts(excludes="*.tmp"))  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize("given", ["~/.ssh/deploy", Path("~/.ssh/deploy"), ["~/.ssh/deploy"]])
def test_one_file_alone_is_no_list_of_letters(given: str | Path | list[str]) -> None:
    ex = connect("ssh://x", capabilities=ALL, identity_files=given, known_hosts=given, config_files=given)  # type: ignore[arg-type]  # a Path will do
    options = ex._host.options  # type: ignore[attr-defined]  # the SSH host's own
    assert options.identity_files == options.known_hosts == options.config_files == ("~/.ssh/deploy",)
