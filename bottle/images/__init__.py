"""Images of agents: the Dockerfile a provider brings or the bottle names, read once and named by what it says."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from bottle.errors import BadManifest
from bottle.manifest.kinds import AgentProvider
from bottle.manifest.store import read_ours
from opsexec.steps.dockerfile import images_of

MAX_BYTES = 256 << 10
_FIXED = re.compile(r"(@|\A)(sha256:)?[0-9a-f]{64}\Z")


@dataclass(frozen=True)
class AgentImage:
    """`where`: the Dockerfile, as a person is shown it; `text`: what it says."""

    where: str
    text: str

    @property
    def digest(self) -> str:
        """Return sha256 of the text, hex."""
        return hashlib.sha256(self.text.encode("utf-8", "surrogatepass")).hexdigest()

    @property
    def name(self) -> str:
        """The image's name: another text is another image, so none is ever replaced below a bottle."""
        return f"bottle-agent:{self.digest[:16]}"

    @property
    def loose(self) -> list[str]:
        """Return the images it is built on by a name that may lead to another one tomorrow. Raises BadStep."""
        return [base for base in images_of(self.text, {}) if not _FIXED.search(base)]


def agent_image(settings: AgentProvider | None, shipped: str, root: Path) -> AgentImage:
    """Return what an agent's image is built of: the manifest's own Dockerfile, else the one shipped under that name.

    The manifest's is absolute, begins with `~/`, or lies below the home root; never in a repository. Raises BadManifest
    where it can't be read, is a link, or is others' to write.
    """
    named = None if settings is None else settings.dockerfile
    if named is None:
        from importlib.resources import files

        return AgentImage(f"the {shipped} of this program", (files(__name__) / shipped).read_text("utf-8"))
    path = root / os.path.expanduser(named)  # a name that nobody has stays as it is
    try:
        return AgentImage(str(path), read_ours(path, MAX_BYTES).decode("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise BadManifest(f"agent_provider.dockerfile {path} can't be read", hint="name a text file") from error
