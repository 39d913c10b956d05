from __future__ import annotations

import itertools
import queue
import threading

import pytest

from opsexec.audit import AuditBroken, AuditLog, tail
from opsexec.audit.segment import closed_segments
from opsexec.errors import AuditUnavailable
from tests.unit.audit_lines import an_allow, write_log


@pytest.fixture
def path(tmp_path):
    return tmp_path / "audit.jsonl"


@pytest.mark.parametrize("count", [0, 1, 5, 17, 1000])
def test_the_last_lines_are_read_across_segments(path, count):
    write_log(path, 30, max_bytes=3000)
    assert len(closed_segments(path)) > 3
    every = [record["seq"] for record in tail(path, 10_000)]
    assert every == list(range(len(every)))
    assert [record["seq"] for record in tail(path, count)] == every[len(every) - min(count, len(every)) :]


def test_a_record_comes_back_as_it_was_appended(path):
    with AuditLog.open(path) as log:
        entry = log.append(an_allow(7, reason="größer \x1b"))
    (record,) = tail(path)
    assert record["hash"] == entry.hash
    assert {name: record[name] for name in an_allow()} == an_allow(7, reason="größer \x1b")


def test_following_yields_each_new_line_once_and_in_order_across_rotations(path):
    write_log(path, 3)
    seen: queue.Queue[int] = queue.Queue()
    followed = tail(path, 1, follow=True)
    assert next(followed)["seq"] == 2

    def follow():
        for record in itertools.islice(followed, 60):
            seen.put(record["seq"])

    reader = threading.Thread(target=follow)
    reader.start()
    with AuditLog.open(path, max_bytes=3000, keep=None) as log:
        for number in range(10):
            log.append(an_allow(number))
        assert seen.get(timeout=10) == 3
        for number in range(60):
            log.append(an_allow(number))
    reader.join(timeout=30)
    assert not reader.is_alive()
    assert [seen.get_nowait() for _ in range(59)] == list(range(4, 63))
    followed.close()


def test_a_follower_that_was_outrun_by_retention_says_so(path):
    write_log(path, 3)
    followed = tail(path, 1, follow=True)
    next(followed)
    write_log(path, 60, max_bytes=2000, keep=1)
    with pytest.raises(AuditBroken, match="removed before it could be read"):
        list(itertools.islice(followed, 100))


def test_a_line_not_yet_whole_is_left_for_later(path):
    write_log(path, 3)
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    assert [record["seq"] for record in tail(path)] == [0, 1]
    followed = tail(path, 1, follow=True)
    assert next(followed)["seq"] == 1
    path.write_bytes(whole)
    assert next(followed)["seq"] == 2
    followed.close()


def test_a_line_that_is_not_json_is_named_not_skipped(path):
    write_log(path, 2)
    path.write_bytes(path.read_bytes().replace(b"{", b"[", 1))
    with pytest.raises(AuditBroken, match="not JSON"):
        list(tail(path))


@pytest.mark.parametrize(
    "odd", [b'{"a":' * 40 + b"1" + b"}" * 40, b'{"a":' * 500 + b"1" + b"}" * 500, b"9007199254740993"]
)
def test_a_line_that_no_log_writes_is_told_as_such(path, odd):
    write_log(path, 1)
    path.write_bytes(path.read_bytes() + b'{"decision":null,"hash":"x","step":' + odd + b',"seq":1}\n')
    with pytest.raises(AuditBroken, match="a line that it didn't write"):
        list(tail(path))


def test_a_log_cut_while_it_is_followed_is_noticed(path):
    write_log(path, 3)
    followed = tail(path, 1, follow=True)
    next(followed)
    path.write_bytes(b"")
    with pytest.raises(AuditBroken, match="was cut"):
        next(followed)


def test_a_log_that_is_not_there_is_an_error(path):
    with pytest.raises(AuditUnavailable, match="No such file"):
        next(tail(path))
