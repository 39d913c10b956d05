"""The caller's end of a session hears the same, however the host's bytes are cut up on their way."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, field
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from opsexec import OpsError
from opsexec.errors import ProtocolError, StepFailed
from opsexec.far import frames
from opsexec.far.frames import HEADER, NUMBER, STATUS
from opsexec.far.launch import Launch
from opsexec.far.message import pack_message
from opsexec.hosts.session import FarSession
from opsexec.recorder import Recorder

NONCE = "opsexec-session-0123456789abcdef\n"


@dataclass
class FakeStream:
    """Stands for the transport: keeps what was sent."""

    sent: bytearray = field(default_factory=bytearray)
    closed: bool = False

    def write(self, data: bytes) -> None:
        self.sent += data

    def close(self) -> None:
        self.closed = True


def frame(kind: int, ref: int, payload: bytes = b"") -> bytes:
    return HEADER.pack(kind, ref, len(payload)) + payload


HELLO = frame(frames.HELLO, 0, pack_message([frames.PROTOCOL, b"3.11.0", b"1", b"0"]))


def launch(run: str) -> Launch:
    return Launch(run, ["/bin/true"], ["/bin/true"], ["true"], {})


@dataclass
class Heard:
    """What a session made of a host's bytes: two runs, and an operation."""

    outputs: list[tuple[list[int], bytes, bytes, str]]
    ends: list[int | OpsError]
    answer: list[bytes] | OpsError | None
    lost: OpsError | None

    def told(self) -> tuple[object, ...]:
        """Everything in plain data, to be compared."""
        return (
            self.outputs,
            [str(end) for end in self.ends],
            str(self.answer),
            str(self.lost),
        )


def hear(blocks: list[bytes]) -> Heard:
    """Feed the blocks to a session that has two runs (1 and 2) and an operation (3) under way."""

    async def listen() -> Heard:
        session = FarSession("host", NONCE)
        session.attach(FakeStream(), b"")
        recorders = [Recorder(), Recorder()]
        runs = [session.start(launch(f"{n}"), recorder) for n, recorder in enumerate(recorders)]
        call = asyncio.ensure_future(session.call("stat", []))
        await asyncio.sleep(0)
        for block in blocks:
            session.data_received(block)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        ends: list[int | OpsError] = []
        for run in runs:
            if not run.done.done():
                ends.append(-1000)
            elif error := run.done.exception():
                assert isinstance(error, OpsError)
                ends.append(error)
            else:
                ends.append(run.done.result())
        answer: list[bytes] | OpsError | None = None
        if call.done():
            error = call.exception()
            assert error is None or isinstance(error, OpsError)
            answer = error or call.result()
        else:
            call.cancel()
        outputs = [(r.counts, r.tail(0), r.tail(1), r.digest) for r in recorders]
        heard = Heard(outputs, ends, answer, session.lost)
        session.close()
        await asyncio.gather(call, *(run.done for run in runs), return_exceptions=True)
        return heard

    return asyncio.run(listen())


OUTPUT = st.builds(
    frame, st.sampled_from([frames.OUTPUT, frames.ERRORS]), st.sampled_from([1, 2, 9]), st.binary(max_size=60)
)
TALK = st.lists(OUTPUT, max_size=12)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    at = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in pairwise(at)]


@given(
    noise=st.binary(max_size=40),
    talk=TALK,
    statuses=st.tuples(st.integers(0, 255), st.integers(-64, -1)),
    answer=st.lists(st.binary(max_size=20), max_size=4),
    places=st.lists(st.integers(0, 4000), max_size=40),
)
def test_arbitrary_boundaries_make_no_difference(
    noise: bytes, talk: list[bytes], statuses: tuple[int, int], answer: list[bytes], places: list[int]
) -> None:
    ends = [frame(frames.EXIT, ref, STATUS.pack(status)) for ref, status in zip((1, 2), statuses, strict=True)]
    said = b"".join([noise, NONCE.encode(), HELLO, *talk, *ends, frame(frames.ANSWER, 3, pack_message(answer))])
    whole = hear([said])
    assert whole.ends == list(statuses)
    assert whole.answer == answer
    assert whole.lost is None
    for ref, (counts, out, err, digest) in zip((1, 2), whole.outputs, strict=True):
        streams = [
            b"".join(f[HEADER.size :] for f in talk if HEADER.unpack_from(f)[:2] == (kind, ref))
            for kind in (frames.OUTPUT, frames.ERRORS)
        ]
        assert (counts, out, err) == ([len(streams[0]), len(streams[1])], *streams)
        assert digest == "sha256:" + hashlib.sha256(streams[0]).hexdigest()
    assert hear(cut(said, places)).told() == whole.told()
    assert hear([bytes([byte]) for byte in said]).told() == whole.told()


@given(data=st.binary(max_size=200), places=st.lists(st.integers(0, 200), max_size=10))
def test_any_bytes_end_in_a_typed_error_or_in_nothing(data: bytes, places: list[int]) -> None:
    said = NONCE.encode() + HELLO + data
    whole = hear([said])
    assert whole.lost is None or isinstance(whole.lost, ProtocolError)
    assert (hear(cut(said, places)).lost is None) == (whole.lost is None)


@given(st.sampled_from([frames.EXIT, frames.ANSWER, frames.FAILED, frames.TAKEN, frames.ENDED, frames.HELLO, 99]),
       st.integers(0, 4), st.binary(max_size=30))  # fmt: skip
def test_any_payload_of_any_frame_ends_in_a_typed_error_or_in_nothing(kind: int, ref: int, payload: bytes) -> None:
    heard = hear([NONCE.encode(), HELLO, frame(kind, ref, payload)])
    assert heard.lost is None or isinstance(heard.lost, ProtocolError)


def test_a_failure_reaches_the_one_it_is_about() -> None:
    failed = frame(frames.FAILED, 2, pack_message([b"no_cwd", b"can't enter /x", b"/x"]))
    heard = hear([NONCE.encode(), HELLO, failed])
    assert heard.ends[0] == -1000
    assert isinstance(heard.ends[1], StepFailed)
    assert heard.lost is None


def test_what_comes_for_nobody_is_passed_over() -> None:
    late = [frame(kind, 7, NUMBER.pack(0)) for kind in (frames.EXIT, frames.TAKEN, frames.ENDED)]
    heard = hear([NONCE.encode(), HELLO, *late, frame(frames.ANSWER, 7, pack_message([b"x"]))])
    assert heard.lost is None
    assert heard.ends == [-1000, -1000]


def test_a_host_that_never_says_the_nonce_is_not_listened_to() -> None:
    heard = hear([HELLO, frame(frames.EXIT, 1, STATUS.pack(0)), b"x" * 1_000_000])
    assert heard.ends == [-1000, -1000]
