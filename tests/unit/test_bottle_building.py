"""The build of an agent's image: told once that it takes a while, its words are in the log."""

from __future__ import annotations

import asyncio
import io
from typing import Any, cast

import pytest

from bottle.building import built
from bottle.bundle_output import BundleOutput
from opsexec.errors import StepFailed
from opsexec.executor import LogSink
from opsexec.steps import ImageBuild

IDENTITY = "worker-00000001"
STEPS = (ImageBuild(name="bottle-agent:1", dockerfile="FROM x\n", labels={"bottle.image": "1"}),)


class Engine:
    """An executor whose builds say these blocks, and end so."""

    def __init__(self, blocks: list[bytes], failed: StepFailed | None = None) -> None:
        self.blocks, self.failed = blocks, failed

    async def run(self, step: ImageBuild, sink: LogSink) -> None:
        """Build."""
        for block in self.blocks:
            await sink.write("stdout", block)
        if self.failed is not None:
            raise self.failed


def build(engine: Engine) -> tuple[list[str], str, StepFailed | None]:
    """Have it built; what was told, what is in the log, what came of it."""
    log, told, none = io.StringIO(), list[str](), cast("Any", None)
    said = BundleOutput(IDENTITY, set(), none, log, none)
    try:
        asyncio.run(built(cast("Any", engine), STEPS, said, told.append))
    except StepFailed as error:
        return told, log.getvalue(), error
    return told, log.getvalue(), None


def test_a_build_is_told_once_and_its_words_are_in_the_log() -> None:
    told, log, failed = build(Engine([b"Step 1/2 : FROM x\nStep 2", b"/2 : RUN y\n\x1b[91mlate", b"st"]))
    assert len(told) == 1
    assert f"`bottle logs {IDENTITY} image`" in told[0]
    assert log == "image | Step 1/2 : FROM x\nimage | Step 2/2 : RUN y\nimage | \\x1b[91mlatest\n"
    assert failed is None


def test_an_image_that_is_there_is_nothing_to_tell() -> None:
    assert build(Engine([])) == ([], "", None)


@pytest.mark.parametrize(
    ("said", "own", "hint"),
    [
        ([b"E: no such package\n"], None, f"`bottle logs {IDENTITY} image` shows why"),
        ([b"E: no such package\n"], "make room", "make room"),
        ([], None, None),
    ],
)
def test_a_build_that_failed_says_where_its_words_are(said: list[bytes], own: str | None, hint: str | None) -> None:
    _, log, failed = build(Engine(said, StepFailed("the image can't be built: 100", host="web1", hint=own)))
    assert failed is not None
    assert (failed.message, failed.host, failed.hint) == ("the image can't be built: 100", "web1", hint)
    assert log == "".join(f"image | {each.decode()}" for each in said)
