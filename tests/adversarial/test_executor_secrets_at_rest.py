"""Where a secret lies once it has arrived, and what shows it on the way."""

from __future__ import annotations

import asyncio
import logging
import traceback

import pytest

from opsexec import CapabilitySet, Exec, OpsError, Secret, WriteFile
from opsexec.handlers.context import Context
from opsexec.handlers.process import specify
from opsexec.hosts.session import as_launch
from opsexec.recorder import Recorder
from opsexec.testing import FakeHost

HUSH = "correct-horse-battery"


@pytest.mark.anyio
async def test_a_secrets_new_file_is_its_owners_alone(target, shared_dir):
    path = shared_dir / "token"
    async with target.connect() as ex:
        await ex.run(WriteFile(path=str(path), content=Secret(HUSH)))
        assert path.stat().st_mode & 0o777 == 0o600
        path.chmod(0o640)
        await ex.run(WriteFile(path=str(path), content=Secret(HUSH + "2")))
        assert path.stat().st_mode & 0o777 == 0o640
        await ex.run(WriteFile(path=str(shared_dir / "named"), content=Secret(HUSH), mode="0644"))
        assert (shared_dir / "named").stat().st_mode & 0o777 == 0o644
        await ex.run(WriteFile(path=str(shared_dir / "plain"), content="x"))
        assert (shared_dir / "plain").stat().st_mode & 0o777 == 0o644


@pytest.mark.anyio
async def test_no_log_at_any_level_holds_a_secret(target, caplog):
    """Debugging is when logs are copied into tickets: asyncio's and asyncssh's own are on here, and so are ours."""
    asyncio.get_running_loop().set_debug(True)
    caplog.set_level(logging.DEBUG)
    logging.getLogger("asyncssh").setLevel(logging.DEBUG)
    step = Exec(["cat"], env={"TOKEN": Secret(HUSH)}, stdin=Secret(HUSH))
    async with target.connect() as ex:
        assert (await ex.run(step)).text == HUSH
        with pytest.raises(OpsError):
            await ex.run(Exec(["/nowhere"], env={"TOKEN": Secret(HUSH)}))
    assert HUSH not in caplog.text


def test_what_a_handler_makes_of_a_step_shows_no_secret():
    host = FakeHost()
    context = Context(run="r", host=host, capabilities=CapabilitySet.everything(), recorder=Recorder())
    step = Exec(["id"], env={"TOKEN": Secret(HUSH)}, stdin=Secret(HUSH))
    spec = specify(step, context)
    assert spec.env == {"TOKEN": HUSH}
    assert HUSH not in repr(spec) + repr(context) + repr(as_launch(spec, False))


@pytest.mark.anyio
async def test_no_error_or_traceback_of_a_failing_step_holds_its_secret(local):
    step = Exec(["false"], env={"TOKEN": Secret(HUSH)}, stdin=Secret(HUSH))
    async with local.connect() as ex:
        with pytest.raises(OpsError) as caught:
            await ex.run(step)
    error = caught.value
    shown = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    assert HUSH not in shown + repr(error) + str(error) + repr(vars(error))
