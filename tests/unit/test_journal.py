from __future__ import annotations

import asyncio
import fcntl
import json
import os
import resource
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opsexec.errors import OpsError, UsageError
from opsexec.inventory import Inventory, InventoryHost
from opsexec.runbook import Journal, Runbook, RunOptions, execute
from opsexec.runbook.journal import JournalUnavailable, journal_dir, new_run_id
from opsexec.runbook.masking import Masker
from opsexec.runbook.report import StepReport
from opsexec.runbook.results import registered
from opsexec.runbook.resume import BadJournal, read_journal
from opsexec.testing import FakeHost, fake_executor

KEYS = [f"steps/{i}" for i in range(4)]
BOOK = Runbook.parse(
    "name: t\nhosts: all\nsteps:\n  - exec: [s0]\n    register: out\n  - exec: [s1]\n  - exec: [s2]\n  - exec: [s3]\n"
)
INVENTORY = Inventory([InventoryHost(name="a", url="ssh://a"), InventoryHost(name="b", url="ssh://b")])


def run(directory, failing: str | None = None, resume: str | None = None):
    """Run BOOK over two fake hosts; return the report and what each host ran."""
    hosts = {name: FakeHost(name, answers={f"s{i}": 1 if f"s{i}" == failing else 0 for i in range(4)}) for name in "ab"}

    def connect(host, capabilities):
        return fake_executor(hosts[host.name], capabilities)

    report = asyncio.run(execute(BOOK, INVENTORY, connect, RunOptions(resume=resume), None, Journal(directory)))
    return report, {name: [call[1] for call in host.calls] for name, host in hosts.items()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[str, bytes]:
    """The journal of a whole run."""
    directory = tmp_path_factory.mktemp("whole")
    report, _ = run(directory)
    return report.run, (directory / f"{report.run}.jsonl").read_bytes()


def finished_by(data: bytes, host: str) -> list[str]:
    """What complete `finished` lines say, read with nothing but json: the oracle."""
    records = [json.loads(line) for line in data.split(b"\n")[:-1]]
    return [r["step"] for r in records if r["kind"] == "finished" and r["host"] == host]


def test_a_journal_cut_at_any_byte_never_lets_an_unfinished_step_pass_for_finished(whole):
    _, data = whole
    header = data.index(b"\n") + 1
    for cut in range(header, len(data) + 1):
        state = read_journal(data[:cut], "j")
        assert state.good_bytes == data[:cut].rfind(b"\n") + 1
        for name in "ab":
            host = state.hosts.get(name)
            good = host.good_prefix(KEYS) if host else []
            assert good == finished_by(data[: state.good_bytes], name)


def test_a_header_that_is_cut_is_no_journal(whole):
    _, data = whole
    for cut in range(data.index(b"\n") + 1):
        with pytest.raises(BadJournal):
            read_journal(data[:cut], "j")


def test_resuming_a_journal_cut_anywhere_runs_exactly_what_is_missing(whole, tmp_path):
    run_id, data = whole
    header = data.index(b"\n") + 1
    for cut in range(header, len(data), 37):
        path = tmp_path / f"{run_id}.jsonl"
        path.write_bytes(data[:cut])
        good = data[: data[:cut].rfind(b"\n") + 1]
        report, ran = run(tmp_path, resume=run_id)
        for name in "ab":
            behind = [key.replace("steps/", "s") for key in finished_by(good, name)]
            assert behind + ran[name] == ["s0", "s1", "s2", "s3"]
            assert len(report.hosts[name].steps) == 4
        assert report.exit_code == 0
        read_journal(path.read_bytes(), "j")


@settings(max_examples=60)
@given(garbage=st.binary(min_size=1, max_size=60), cut=st.integers(0, 10**6))
def test_garbage_at_the_end_is_cut_off_and_in_the_middle_is_refused(whole, garbage, cut):
    _, data = whole
    ends = [i + 1 for i, byte in enumerate(data) if byte == 10]
    at = ends[cut % len(ends)]
    torn = garbage.replace(b"\n", b"?") + b"\xff"
    assert read_journal(data[:at] + torn, "j").good_bytes == at
    assert read_journal(data[:at] + torn + b"\n", "j").good_bytes == at
    if at < len(data):
        with pytest.raises(BadJournal):
            read_journal(data[:at] + torn + b"\n" + data[at:], "j")


@given(st.binary(max_size=200))
def test_any_bytes_are_a_journal_or_a_bad_journal(data):
    said = "j:"
    try:
        read_journal(data, "j")
    except BadJournal as error:
        said = error.message
    assert said.startswith("j:")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["kind", "host", "step", "status"]), inner, max_size=4)
        ),
        max_leaves=8,
    )
)
def test_any_record_is_taken_or_refused(record):
    head = b'{"kind":"run","version":1,"digest":"x"}\n'
    for kind in ("started", "finished", "host"):
        line = json.dumps({"kind": kind, "host": "a", "step": record, "status": record}).encode() + b"\n"
        said = "j:2:"
        try:
            read_journal(head + line, "j")
        except BadJournal as error:
            said = error.message
        assert said.startswith("j:2:")


def test_a_step_begun_and_not_finished_is_not_behind_a_host():
    lines = [
        {"kind": "run", "version": 1, "digest": "x"},
        {"kind": "started", "host": "a", "step": "steps/0", "name": "x"},
    ]
    state = read_journal(b"".join(json.dumps(line).encode() + b"\n" for line in lines), "j")
    assert state.hosts["a"].good_prefix(KEYS) == []
    assert state.hosts["a"].begun == {"steps/0"}


def test_a_second_resume_sees_what_the_first_one_did(tmp_path):
    report, _ = run(tmp_path, failing="s1")
    again, ran = run(tmp_path, failing="s3", resume=report.run)
    assert ran["a"] == ["s1", "s2", "s3"]
    last, ran = run(tmp_path, resume=report.run)
    assert ran["a"] == ["s3"]
    assert last.exit_code == 0
    _, ran = run(tmp_path, resume=report.run)
    assert ran == {"a": [], "b": []}
    assert again.run == last.run == report.run


def test_a_run_that_somebody_looks_at_just_then_can_be_gone_on_with(tmp_path, monkeypatch):
    report, _ = run(tmp_path, failing="s1")
    looking = os.open(tmp_path / f"{report.run}.jsonl", os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)
    monkeypatch.setattr(time, "sleep", lambda seconds: fcntl.flock(looking, fcntl.LOCK_UN))
    again, ran = run(tmp_path, resume=report.run)
    os.close(looking)
    assert again.exit_code == 0
    assert ran["a"] == ["s1", "s2", "s3"]


def test_a_run_whose_journal_somebody_keeps_locked_is_not_gone_on_with_and_says_how_to_find_who(tmp_path):
    report, _ = run(tmp_path, failing="s1")
    with (tmp_path / f"{report.run}.jsonl").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(UsageError, match="is going on in another process") as caught:
            run(tmp_path, resume=report.run)
    assert f"fuser {tmp_path}/{report.run}.jsonl" in str(caught.value.hint)


def test_the_journal_is_private_and_begins_with_its_header(tmp_path):
    report, _ = run(tmp_path / "deep" / "er")
    path = tmp_path / "deep" / "er" / f"{report.run}.jsonl"
    assert path.stat().st_mode & 0o777 == 0o600
    header = json.loads(path.read_text().splitlines()[0])
    assert header["kind"] == "run"
    assert header["digest"] == BOOK.digest
    assert header["hosts"] == {"a": "ssh://a", "b": "ssh://b"}


def test_journals_stand_under_the_state_directory(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert journal_dir() == tmp_path / "opsexec" / "runs"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert journal_dir() == tmp_path / ".local/state/opsexec/runs"


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond so many bytes, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)


@pytest.mark.parametrize("size", [0, 40])
def test_a_run_that_finds_the_disk_full_leaves_no_journal_without_a_beginning(tmp_path, size):
    with room_for(size), pytest.raises(JournalUnavailable):
        run(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_ends_the_run_and_leaves_whole_lines(tmp_path):
    with room_for(900), pytest.raises(JournalUnavailable) as caught:
        run(tmp_path)
    assert caught.value.exit_code == 3
    (file,) = tmp_path.iterdir()
    data = file.read_bytes()
    assert read_journal(data, "j").good_bytes == len(data)


@pytest.mark.parametrize("replaced", [False, True])
def test_a_run_whose_journal_is_removed_or_replaced_is_not_gone_on_with(tmp_path, replaced):
    journal, other = Journal(tmp_path), Journal(tmp_path)
    name = new_run_id()
    journal.start(name, {"file": "f", "digest": "d", "hosts": {}, "check": False, "limit": None, "tags": []})
    journal.record("begun", host="a", step=KEYS[0])
    path = journal.path(name)
    if replaced:
        copy = tmp_path / "copy"
        copy.write_bytes(path.read_bytes())
        copy.chmod(0o600)
        copy.replace(path)
        other.reopen(name)  # the other file's lock is another one: two runs would go on side by side
    else:
        path.unlink()
    with pytest.raises(JournalUnavailable, match="removed or replaced") as caught:
        journal.record("begun", host="a", step=KEYS[1])
    assert caught.value.exit_code == 3
    for each in (journal, other):
        each.close()


def test_run_ids_sort_by_time_and_name_one_file(tmp_path):
    first = new_run_id()
    assert Journal(tmp_path).path(first).name == f"{first}.jsonl"
    for text in ("", "../x", first + "/", first + "\n", "x" * 300):
        with pytest.raises(OpsError):
            Journal(tmp_path).path(text)


@given(
    st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=3),
    st.text(max_size=30),
    st.text(max_size=30),
)
def test_no_secret_is_left_in_masked_text(secrets, before, after):
    masker = Masker(secrets)
    for secret in secrets:
        masked = masker.text(before + secret + after)
        for each in secrets:
            assert each.strip("* ") == "" or each not in masked.replace("***", "")


@given(st.text(alphabet="abcdef", min_size=8, max_size=20), st.integers(1, 5))
def test_what_is_left_of_a_secret_at_a_cut_is_masked(secret, lost):
    assert secret[lost:] not in Masker([secret]).text(secret[lost:] + " tail", cut=True)


@pytest.mark.parametrize("secret", ["x", "e", "1", "step", "failed", "finished"])
def test_a_short_secret_spoils_no_journal(secret, tmp_path):
    journal = Journal(tmp_path)
    journal.masker = Masker([secret])
    run = new_run_id()
    journal.start(run, {"digest": "d" * 64, "hosts": {"web1": "local:"}, "vars": {"token": secret}})
    journal.record("started", host="web1", step="0", name="step one")
    finished = {"status": "ok", "changed": True, "exit_code": 1, "duration_s": 0.5, "error": None}
    finished["stdout_tail"] = secret
    journal.record("finished", host="web1", step="0", name="step one", **finished)
    journal.close()
    (file,) = tmp_path.iterdir()
    state = read_journal(file.read_bytes(), "j")
    assert state.header["digest"] == "d" * 64
    assert state.header["vars"]["token"] == "***"
    last = json.loads(file.read_text().splitlines()[-1])
    assert (last["host"], last["step"], last["status"]) == ("web1", "0", "ok")
    assert secret not in last["stdout_tail"].replace("***", "")


def test_a_secret_that_a_host_names_something_by_is_not_kept(tmp_path):
    secrets = ["s3cret-token", "value", "exit_code"]
    journal = Journal(tmp_path)
    journal.masker = Masker(secrets)
    run = new_run_id()
    journal.start(run, {"digest": "d" * 64, "hosts": {"web1": "local:"}})
    row = {"name": "web", "labels": {"by s3cret-token": "yes", "value": "kept by its name"}}
    result = registered(None) | {"value": [row]}
    report = StepReport(name="one", status="ok").as_json()
    journal.record("finished", host="web1", step="0", **report, registered=result)
    journal.close()
    (file,) = tmp_path.iterdir()
    assert "s3cret-token" not in file.read_text()
    kept = read_journal(file.read_bytes(), "j").hosts["web1"].finished["0"].registered
    assert kept is not None
    assert kept.keys() == result.keys()
    assert kept["value"] == [{"name": "web", "labels": {"by ***": "yes", "value": "kept by its name"}}]


def test_a_directory_that_can_not_be_made_is_said_with_what_helps(tmp_path):
    (tmp_path / "state").write_text("a file")
    with pytest.raises(JournalUnavailable) as caught:
        Journal(tmp_path / "state" / "runs").start("20250131-235959-0a1b2c", {})
    assert caught.value.hint == "make it writable, or name another directory in XDG_STATE_HOME"
