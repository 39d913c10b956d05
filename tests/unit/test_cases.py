"""Runs every case of tests/cases: step + host -> exact calls and outcome. The README there says how to add one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from ruamel.yaml import YAML

from opsexec.capability import CapabilitySet
from opsexec.errors import CapabilityDenied, OpsError
from opsexec.secret import Secret
from opsexec.steps.base import Step
from opsexec.steps.vocabulary import AnyStep
from opsexec.testing import FakeHost, FakeNode, MemoryAudit, fake_executor

CASES = Path(__file__).parents[1] / "cases"


class Expect(msgspec.Struct, forbid_unknown_fields=True):
    calls: list[list[str]] | None = None
    changed: bool | None = None
    diff: str | msgspec.UnsetType | None = msgspec.UNSET
    stdout: str | None = None
    value: Any = msgspec.UNSET
    skipped: str | None = None
    exit_code: int | None = None
    signal: str | None = None
    files: dict[str, str | None] = {}
    links: dict[str, str] = {}
    modes: dict[str, str] = {}
    error: str | None = None
    says: str | None = None
    hint: str | None = None
    layer: str | None = None


class Link(msgspec.Struct, forbid_unknown_fields=True):
    link: str


class File(msgspec.Struct, forbid_unknown_fields=True):
    content: str = ""
    mode: str | None = None
    owner: str = "root"
    group: str = "root"


class Case(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    step: dict[str, Any]
    expect: Expect
    capabilities: list[str] | None = None
    run_as: list[str] = []
    check: bool = False
    diff: bool = False
    files: dict[str, Any] = {}
    dirs: list[str] = []
    answers: dict[str, Any] = {}
    facts: dict[str, Any] = {}
    samples: list[dict[str, Any]] = []
    syncs: dict[str, list[str]] = {}


def load() -> list[Any]:
    found = []
    for file in sorted(CASES.glob("*.yaml")):
        for number, document in enumerate(YAML(typ="safe").load_all(file.read_text("utf-8")), 1):
            name = document.get("name", f"case {number}") if isinstance(document, dict) else f"case {number}"
            found.append(pytest.param(document, id=f"{file.stem}: {name}"))
    return found


def node_of(value: Any) -> FakeNode | str:
    if isinstance(value, str):
        return value
    if "link" in value:
        return FakeNode("link", target=msgspec.convert(value, Link).link)
    file = msgspec.convert(value, File)
    mode = None if file.mode is None else int(file.mode, 8)
    return FakeNode("file", data=file.content.encode(), mode=mode, owner=file.owner, group=file.group)


def secrets_of(step: Any) -> list[str]:
    """The secrets of a case's step, however the step itself turns out."""
    if isinstance(step, dict):
        if step.get("type") == "secret":
            return [step["value"]]
        return [secret for value in step.values() for secret in secrets_of(value)]
    return []


@pytest.mark.anyio
@pytest.mark.parametrize("document", load())
async def test_case(document):
    case = msgspec.convert(document, Case)
    expect = case.expect
    host = FakeHost(
        files={path: node_of(value) for path, value in case.files.items()},
        dirs=case.dirs,
        answers=case.answers,
        facts=case.facts,
        samples=case.samples or [{}],
        syncs=case.syncs,
    )
    granted = CapabilitySet.everything()
    if case.capabilities is not None:
        granted = CapabilitySet.of(*case.capabilities, run_as=case.run_as)
    audit = MemoryAudit()
    said: list[Any] = [audit.records]
    try:
        step = msgspec.convert(case.step, AnyStep)
        assert isinstance(step, Step)
        async with fake_executor(host, granted, audit=audit) as executor:
            output = await executor.run(step, check=case.check, diff=case.diff)
    except msgspec.ValidationError as error:
        pytest.fail(f"the case's step is none: {error}")
    except OpsError as error:
        said += [error, error.hint]
        matches_error(expect, error)
    else:
        said += [output, output.diff, output.value, output.stdout]
        matches_output(expect, output)
    matches_host(expect, host)
    for secret in secrets_of(case.step):
        assert secret not in repr(said)
        assert secret not in repr(host.calls)
    assert_pairs(audit)


def matches_error(expect: Expect, error: OpsError) -> None:
    assert expect.error == error.code, error
    assert expect.says is None or expect.says in str(error)
    assert expect.hint is None or expect.hint in str(error.hint)
    assert error.hint or not isinstance(error, CapabilityDenied)
    if expect.layer is not None:
        assert isinstance(error, CapabilityDenied)
        assert error.layer == expect.layer


def matches_output(expect: Expect, output: Any) -> None:
    assert expect.error is None, f"it was done, though {expect.error} was expected"
    for name in ("changed", "exit_code", "signal"):
        wanted = getattr(expect, name)
        assert wanted is None or getattr(output, name) == wanted, name
    assert expect.diff is msgspec.UNSET or output.diff == expect.diff
    assert expect.stdout is None or output.text == expect.stdout
    assert expect.skipped is None or expect.skipped in str(output.skipped)
    if isinstance(expect.value, dict):
        assert {name: output.value[name] for name in expect.value} == expect.value
    elif expect.value is not msgspec.UNSET:
        assert output.value == expect.value


def matches_host(expect: Expect, host: FakeHost) -> None:
    assert expect.calls is None or host.calls == expect.calls
    for path, text in expect.files.items():
        assert host.content(path) == (None if text is None else text.encode()), path
    for path, target in expect.links.items():
        assert host.tree.nodes[path].target == target
    for path, mode in expect.modes.items():
        assert f"{host.tree.nodes[path].mode:04o}" == mode


def assert_pairs(audit: MemoryAudit) -> None:
    """A denied run is one line that says so; every other run is its decision and then its outcome."""
    decisions = [record.get("decision") for record in audit.records]
    assert decisions in ([], ["deny"], ["allow", None], ["allow", "deny"])
    assert all("outcome" in record for record in audit.records[1:])


def test_there_are_cases_of_every_family():
    families = {type(msgspec.convert(p.values[0]["step"], AnyStep)).family for p in good_cases()}
    assert families == {"process", "files", "sync", "services", "observe"}


def good_cases() -> list[Any]:
    return [param for param in load() if param.values[0]["expect"].get("error") != "bad_step"]


@pytest.mark.parametrize("node", [{"contents": "x"}, {"mod": "0600"}, {"mode": 600}, {"link": "/a", "mode": "0600"}])
def test_a_mistyped_file_of_a_case_is_no_file_without_it(node):
    with pytest.raises(msgspec.ValidationError):
        node_of(node)


def test_a_secret_is_one_in_a_case_too():
    step: Any = msgspec.convert(
        {"type": "write_file", "path": "/a", "content": {"type": "secret", "value": "hush"}}, AnyStep
    )
    assert step.content == Secret("hush")
