"""The frames between AgentRpc and ops-agent: whole however they are cut, refused when they are none."""

from __future__ import annotations

import json
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import runner
from opsexec import wire
from opsexec.capability import CapabilitySet
from opsexec.errors import (
    AuditUnavailable,
    BadCapability,
    BadStep,
    CapabilityDenied,
    ConnectionLost,
    LimitExceeded,
    OpsError,
    ProtocolError,
    StepTimeout,
    UsageError,
)
from opsexec.secret import Secret
from opsexec.steps import Exec, Shell, Step, WriteFile
from opsexec.wire import FROM_AGENT, FrameParser, Result, decode_request, decode_result, encode_request, encode_result
from opsexec.wire_errors import decode_error, pack_error

FRAMES = st.lists(st.tuples(st.sampled_from(sorted(FROM_AGENT)), st.binary(max_size=300)), max_size=10)


def parsed(pieces: list[bytes], kinds: frozenset[int] = FROM_AGENT, max_whole: int = 1000) -> list[tuple[int, bytes]]:
    """What a parser makes of the pieces, with the pieces of one kind put together again."""
    found: list[tuple[int, bytes]] = []

    def take(kind: int, data: bytes) -> None:
        if found and found[-1][0] == kind and kind in wire.BULK:
            found[-1] = (kind, found[-1][1] + data)
        else:
            found.append((kind, data))

    parser = FrameParser(take, kinds, max_whole)
    for piece in pieces:
        parser.feed(piece)
    assert parser.between_frames
    return found


@given(frames=FRAMES, cuts=st.lists(st.integers(0, 3000), max_size=20))
def test_frames_are_the_same_however_they_are_cut(frames: list[tuple[int, bytes]], cuts: list[int]) -> None:
    data = b"".join(wire.frame(kind, payload) for kind, payload in frames)
    at = [0, *sorted(cut for cut in cuts if cut <= len(data)), len(data)]
    assert parsed([data[a:b] for a, b in pairwise(at)]) == parsed([data])


@given(st.binary(max_size=200))
def test_bytes_that_are_no_frames_are_refused_or_unfinished_and_nothing_else(data: bytes) -> None:
    parser = FrameParser(lambda kind, piece: None, wire.TO_AGENT, 100)
    try:
        parser.feed(data)
    except ProtocolError:
        return


def test_a_frame_over_its_limit_is_refused_by_its_head() -> None:
    for kind, size in ((wire.RESULT, 1001), (wire.OUT, wire.MAX_BULK_FRAME + 1), (0x7F, 0)):
        head = bytes([kind]) + size.to_bytes(4, "big")
        with pytest.raises(ProtocolError):
            FrameParser(lambda kind, piece: None, FROM_AGENT, 1000).feed(head)


STEPS: list[Step] = [
    Exec(["/bin/echo", "\udcff\udcfe"], env={"A": Secret("s")}),
    Exec(["id"], run_as="x", timeout_s=3, stdin=Secret("x")),
    Shell("a.b", "echo ü"),
    WriteFile("/a/\udcff", data=b"\x00\xff"),
    WriteFile("/a", content=Secret("s")),
]


@pytest.mark.parametrize("step", STEPS)
def test_a_step_arrives_as_it_was(step: Step) -> None:
    data = encode_request(step, run="0123456789abcdef")
    request = decode_request(data[wire.HEAD_BYTES :])
    assert request.decoded_step() == step


@given(st.binary(max_size=300))
def test_a_request_that_is_none_is_a_protocol_error(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_request(data)


def test_text_that_is_no_utf_8_is_refused_like_anything_malformed() -> None:
    good = encode_request(Exec(["/bin/echo", "word"]), run="0123456789abcdef")[wire.HEAD_BYTES :]
    with pytest.raises(BadStep):
        decode_request(good.replace(b"word", b"w\xffrd")).decoded_step()
    with pytest.raises(ProtocolError):
        decode_request(good.replace(b"0123456789abcdef", b"\xff123456789abcdef"))
    with pytest.raises(ProtocolError):
        decode_result(msgspec.msgpack.encode(Result(run="word", exit_code=0)).replace(b"word", b"w\xffrd"))
    told = msgspec.msgpack.encode(pack_error(OpsError("word"))).replace(b"word", b"w\xffrd")
    assert isinstance(decode_error(told, "h"), ProtocolError)


def test_a_request_holds_exactly_one_step() -> None:
    for request in (wire.StepRequest(run="x"), wire.StepRequest(run="x", step=msgspec.Raw(b"\x80"), step_text="{}")):
        with pytest.raises(BadStep):
            decode_request(msgspec.msgpack.encode(request)).decoded_step()
    packed = decode_request(encode_request(Exec(["/bin/a"]), run="x")[wire.HEAD_BYTES :]).step
    with pytest.raises(BadStep, match="exactly one step"):
        wire.StepRequest(run="x", step=packed, step_text='{"type": "exec", "argv": ["/bin/b"]}').decoded_step()
    with pytest.raises(BadStep, match="exactly one step"):
        wire.StepRequest(run="x").decoded_step()
    for text in ("", "[" * 100_000, '{"type": "nothing"}', json.dumps({"type": "exec", "argv": []})):
        with pytest.raises(BadStep):
            wire.StepRequest(run="x", step_text=text).decoded_step()


def test_a_field_that_nobody_knows_is_refused_not_left_out() -> None:
    """`runas` would run the step as the agent's own user, `max_timeout` narrow nothing."""
    for step in (
        {"type": "exec", "argv": ["/bin/a"], "runas": "nobody"},
        {"type": "stat", "path": "/a", "follow": True},
    ):
        packed = msgspec.Raw(msgspec.msgpack.encode(step))
        for request in (
            wire.StepRequest(run="x", step=packed),
            wire.StepRequest(run="x", step_text=json.dumps(step)),
        ):
            with pytest.raises(BadStep, match="unknown field"):
                request.decoded_step()
    narrowed = {"run": "x", "attenuation": [{"capabilities": ["exec:**"], "max_timeout": 1}]}
    with pytest.raises(ProtocolError, match="unknown field"):
        decode_request(msgspec.msgpack.encode(narrowed))


def test_what_a_caller_narrowed_itself_to_arrives_whole() -> None:
    a = CapabilitySet.of("exec:/bin/a", run_as=["x"], max_timeout_s=3)
    both = a & CapabilitySet.of("exec:**", max_output_bytes=9)
    for held in (a, both, CapabilitySet.nothing()):
        grants = wire.pack_grants(held)
        assert grants is not None
        assert wire.unpack_grants(grants) == held
    assert wire.pack_grants(CapabilitySet.everything()) is None
    assert wire.unpack_grants(()) == CapabilitySet.nothing()


def test_a_request_is_held_to_what_its_caller_narrowed_itself_to() -> None:
    step = Exec(["/bin/a"])
    for held in (CapabilitySet.of("exec:/bin/a"), CapabilitySet.nothing()):
        data = encode_request(step, run="x", attenuation=wire.pack_grants(held))
        assert decode_request(data[wire.HEAD_BYTES :]).ceiling() == held
    assert decode_request(encode_request(step, run="x", attenuation=())[wire.HEAD_BYTES :]).ceiling() == held
    whole = decode_request(encode_request(step, run="x")[wire.HEAD_BYTES :])
    assert whole.ceiling() is None
    assert (whole.check, whole.diff, whole.detach, whole.streams_stdin) == (False,) * 4


@pytest.mark.parametrize(
    "grants",
    [
        (wire.Grants(tuple(f"exec:/bin/a{number}" for number in range(5000))),),
        tuple(wire.Grants((f"exec:/bin/a{number}",)) for number in range(5000)),
        (wire.Grants((), run_as=tuple(f"u{number}" for number in range(5000))),),
        (wire.Grants(("exec:/bin/a " + "x" * 200_000,)),),
    ],
)
def test_a_set_so_large_that_reading_it_would_hold_others_up_is_refused(grants: tuple[wire.Grants, ...]) -> None:
    with pytest.raises(BadCapability, match="4096 grants"):
        wire.unpack_grants(grants)


@pytest.mark.parametrize(
    "error",
    [
        CapabilityDenied("exec:/bin/x", ["facts:*"], layer="host", reason="why"),
        StepTimeout("late", hint="wait"),
        LimitExceeded("much"),
        ConnectionLost("gone"),
        AuditUnavailable("full"),
        OpsError("odd \udcff"),
    ],
)
def test_an_error_arrives_as_its_own_kind(error: OpsError) -> None:
    found = decode_error(msgspec.msgpack.encode(pack_error(error)), "web1")
    assert type(found) is type(error)
    assert found.message == error.message.replace("\udcff", "\\udcff")
    assert (found.hint, found.host) == (error.hint, "web1")
    if isinstance(error, CapabilityDenied):
        assert isinstance(found, CapabilityDenied)
        assert (found.needed, found.held, found.layer) == (error.needed, error.held, error.layer)


def test_a_special_error_arrives_as_the_nearest_known_kind() -> None:
    class Broken(AuditUnavailable):
        code = "audit_broken"

    assert type(decode_error(msgspec.msgpack.encode(pack_error(Broken("x"))), "h")) is AuditUnavailable


def test_a_result_that_ended_in_no_way_or_two_is_refused() -> None:
    good = Result(run="x", exit_code=0, value={"a": ["\udcff"]}, diff="\udcfe", skipped="\udcfd")
    found = decode_result(encode_result(good)[wire.HEAD_BYTES :])
    assert (found.value, found.diff, found.skipped) == ({"a": ["\\udcff"]}, "\\udcfe", "\\udcfd")
    assert decode_result(encode_result(Result(run="x", exit_code=0, value=("\udcff",)))[5:]).value == ["\\udcff"]
    for bad in (Result(run="x"), Result(run="x", exit_code=0, signal="SIGTERM")):
        with pytest.raises(ProtocolError):
            decode_result(msgspec.msgpack.encode(bad))


def test_another_major_is_refused_and_another_minor_is_not() -> None:
    wire.require_same_major("1.7")
    for other in (None, "", "2.0", "0.9", "10.0", "x"):
        with pytest.raises(ProtocolError):
            wire.require_same_major(other)


def test_the_runner_writes_the_frames_that_the_agent_reads() -> None:
    assert (runner.OUT, runner.ERR) == (wire.OUT, wire.ERR)
    assert runner._HEAD.size == wire.HEAD_BYTES


def test_a_grant_that_can_not_travel_is_refused_in_a_sentence() -> None:
    for step in (Exec(("true",)), Exec(("\udcff",))):
        with pytest.raises(UsageError, match="not UTF-8") as caught:
            encode_request(step, run="a" * 16, attenuation=wire.pack_grants(CapabilitySet.of("exec:/bin/\udcff")))
        assert caught.value.hint


def test_a_value_that_json_can_not_say_is_refused() -> None:
    deep: object = 1
    for _ in range(100):
        deep = [deep]
    for value in (b"x", float("nan"), [float("inf")], {"a": {1: 2}}, msgspec.msgpack.Ext(-1, bytes(4)), deep):
        with pytest.raises(ProtocolError):
            decode_result(msgspec.msgpack.encode(Result(run="x", exit_code=0, value=value)))


@pytest.mark.parametrize(
    ("text", "fine"),
    [
        ("a" * 8, True), ("a" * 7, False), ("0" * 64, True), ("0" * 65, False), ("a-------", True), ("-aaaaaaa", False),
        ("A" * 8, False), ("a" * 8 + "\n", False), ("\n" + "a" * 8, False), ("../" + "a" * 8, False), ("", False),
        ("\u0661" * 8, False), ("a" * 7 + "_", False),
    ],
)  # fmt: skip
def test_a_run_is_named_by_what_is_no_path_and_no_option(text: str, fine: bool) -> None:
    assert wire.is_run_id(text) == fine
    if fine:
        assert wire.require_run_id(text) == text
        return
    with pytest.raises(UsageError, match="is not a run id"):
        wire.require_run_id(text)


def test_a_frame_of_just_its_limit_passes_and_a_stream_ends_between_frames() -> None:
    assert parsed([wire.frame(wire.RESULT, b"x" * 1000)]) == [(wire.RESULT, b"x" * 1000)]
    assert parsed([wire.frame(wire.OUT, b"x" * (1 << 20))]) == [(wire.OUT, b"x" * (1 << 20))]
    parser = FrameParser(lambda kind, piece: None, FROM_AGENT, 1000)
    data = wire.frame(wire.OUT, b"ab") + wire.frame(wire.RESULT, b"cd") + wire.frame(wire.ERR)
    ends, done = [], []
    for at in range(len(data)):
        parser.feed(data[at : at + 1])
        done.append(parser.bulk_done)
        if parser.between_frames:
            ends.append(at)
    assert ends == [6, 13, 18]
    assert done == [0] * 6 + [7] * 13


def test_an_empty_frame_is_taken_and_what_is_taken_of_a_view_is_its_own() -> None:
    assert parsed([wire.frame(wire.BEAT) + wire.frame(wire.STARTED)]) == [(wire.BEAT, b""), (wire.STARTED, b"")]
    taken: list[bytes] = []
    parser = FrameParser(lambda kind, piece: taken.append(piece), FROM_AGENT, 1000)
    data = bytearray(wire.frame(wire.OUT, b"abcd"))
    parser.feed(memoryview(data)[:7])
    parser.feed(memoryview(data)[7:])
    data[:] = b"-" * len(data)
    assert taken == [b"ab", b"cd"]
    assert wire.frame_head(wire.OUT, 4) == wire.frame(wire.OUT, b"abcd")[:5]


def test_each_side_takes_its_own_kinds_alone() -> None:
    assert sorted(wire.TO_AGENT) == [1, 2, 3]
    assert sorted(wire.TO_TERMINAL) == [1, 2, 3, 4]
    assert sorted(FROM_AGENT) == [0x11, 0x12, 0x13, 0x14, 0x15, 0x16]
    assert sorted(wire.FROM_TERMINAL) == [0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18]
    assert sorted(wire.BULK) == [0x02, 0x11, 0x12]


def test_a_set_of_just_the_bound_is_read() -> None:
    texts = tuple(f"exec:/bin/a{number}" for number in range(4094))
    assert len(wire.unpack_grants((wire.Grants(texts, run_as=("x",)),)).describe()) == 4094
    with pytest.raises(BadCapability, match="4096 grants"):
        wire.unpack_grants((wire.Grants((*texts, "facts:*", "tty:**"), run_as=("x",)),))
    whole = "exec:/bin/a " + "x" * ((128 << 10) - 12)
    assert wire.unpack_grants((wire.Grants((whole,)),)).describe() == [whole]
    with pytest.raises(BadCapability, match="131072 characters"):
        wire.unpack_grants((wire.Grants((whole,), run_as=("x",)),))


def test_a_value_is_nested_as_deep_as_the_bound() -> None:
    value: object = True
    for depth in range(66):
        data = msgspec.msgpack.encode(Result(run="x", exit_code=0, value=value))
        if depth <= 64:
            assert decode_result(data).value == value
        else:
            with pytest.raises(ProtocolError):
                decode_result(data)
        value = {"a": value} if depth % 2 else [value]
    for fine in (None, 1.5, {"a": [1, "b", None, False]}):
        assert decode_result(msgspec.msgpack.encode(Result(run="x", signal="SIGTERM", value=fine))).value == fine
    for late in (float("nan"), float("inf")):
        with pytest.raises(ProtocolError, match="not plain JSON"):
            decode_result(msgspec.msgpack.encode(Result(run="x", exit_code=0, duration_s=late)))
