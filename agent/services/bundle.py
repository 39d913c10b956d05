"""The evidence bundle of a quarantine: a directory of mode 0700, its files 0600, and a manifest that seals them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from agent.services.acts import ENDING, Act, Done, do
from agent.services.evidence import Redacted
from opsexec.errors import OpsError, StepFailed
from opsexec.far.match import normalise
from opsexec.steps import MakeDir, ReadFile, Survey, WriteFile

if TYPE_CHECKING:
    from opsexec.executor import Executor

SCHEMA = 1
MANIFEST = "manifest.json"
State = Literal["captured", "contained", "released"]


class BundleFile(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One file of a bundle; `mode`, `owner`: of the original, where it was a file."""

    path: str
    sha256: str
    size: int
    origin: str | None = None
    mode: str | None = None
    owner: str | None = None


class Manifest(msgspec.Struct, kw_only=True):
    """What a bundle is. `restore`: the commands that undo it; `receipt_hash`: sha256 over all the rest."""

    schema: int
    subject: str
    unit: str
    user: bool
    state: State
    created_at: str
    host: str
    actor: str
    steps: list[Done]
    files: list[BundleFile]
    incomplete: list[str]
    restore: list[list[str]]
    containers: list[str] = []
    receipt_hash: str = ""

    def sealed(self) -> bytes:
        """Return it as JSON with its hash."""
        bare = msgspec.structs.replace(self, receipt_hash="")
        digest = hashlib.sha256(msgspec.json.encode(bare, order="sorted")).hexdigest()
        sealed = msgspec.structs.replace(self, receipt_hash=digest)
        return msgspec.json.format(msgspec.json.encode(sealed, order="sorted"), indent=1) + b"\n"

    @property
    def intact(self) -> bool:
        """True when the hash is that of the rest."""
        bare = msgspec.structs.replace(self, receipt_hash="")
        return self.receipt_hash == hashlib.sha256(msgspec.json.encode(bare, order="sorted")).hexdigest()


def parse_manifest(data: bytes, path: str) -> Manifest:
    """Return a manifest; raises StepFailed for one that is none, or was changed."""
    try:
        found = msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise StepFailed(f"{path} is no manifest: {error}", hint="look at the bundle by hand") from error
    if not found.intact or found.schema != SCHEMA:
        raise StepFailed(f"{path} was changed since it was written", hint="look at the bundle by hand")
    return found


async def newest(executor: Executor, directory: str, name: str) -> tuple[str, Manifest] | None:
    """Return the newest bundle of a service with its place; None where there is none. Raises OpsError."""
    place = normalise(f"{directory}/{name}")
    listed = (await executor.run(Survey(place, max_entries=2000))).value
    found = sorted(each["path"] for each in listed["entries"] if each["kind"] == "directory")
    for bundle in reversed(found):
        path = f"{bundle}/{MANIFEST}"
        try:
            data = (await read_whole(executor, path, 4 << 20))[0]
        except ENDING:
            raise
        except StepFailed:
            continue  # a run that was cut off before it had captured anything
        return bundle, parse_manifest(data, path)
    return None


async def read_whole(executor: Executor, path: str, limit: int) -> tuple[bytes, str]:
    """Return a file's content and mode; raises OpsError."""
    from agent.services.evidence import Blocks

    blocks = Blocks()
    output = await executor.run(ReadFile(path, max_bytes=limit), blocks)
    return b"".join(blocks.kept), str(output.value["mode"])


async def write_files(
    executor: Executor, bundle: str, found: Sequence[Redacted]
) -> tuple[list[BundleFile], list[Done]]:
    """Write the evidence into a new bundle; raises OpsError, for without evidence nothing is touched."""
    parent, _, _ = bundle.rpartition("/")
    for directory in (parent.rpartition("/")[0], parent, bundle):
        await executor.run(MakeDir(directory, mode="0700"))
    files, steps = [], []
    for each in found:
        source = each.source
        digest = hashlib.sha256(each.data).hexdigest()
        await executor.run(WriteFile(f"{bundle}/{source.file}", data=each.data, mode="0600"))
        files.append(
            BundleFile(
                path=source.file,
                sha256=digest,
                size=len(each.data),
                origin=source.origin,
                mode=source.mode,
                owner=source.owner,
            )
        )
        steps.append(
            Done(
                id=f"capture.{source.id}",
                argv=source.argv,
                rc=source.rc,
                started_at=source.started_at,
                duration_ms=source.duration_ms,
                file=source.file,
                sha256=digest,
                redactions=dict(each.counts),
            )
        )
    return files, steps


async def write_manifest(executor: Executor, bundle: str, manifest: Manifest) -> None:
    """Write the manifest, sealed; raises OpsError."""
    done = await do(executor, Act("manifest", WriteFile(f"{bundle}/{MANIFEST}", data=manifest.sealed(), mode="0600")))
    if done.rc != 0:
        raise OpsError(f"the manifest of {bundle} can't be written: {done.error}", hint="is the disk full?")
