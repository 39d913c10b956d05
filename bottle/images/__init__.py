"""Images of agents: the Dockerfile a provider brings or the bottle names, read once and named by what it says."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from bottle.errors import BadManifest
from bottle.manifest.model import AgentProvider
from bottle.manifest.store import read_ours

MAX_BYTES = 256 << 10


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


def agent_image(settings: AgentProvider | None, shipped: str, root: Path) -> AgentImage:
    """Return what an agent's image is built of: the manifest's own Dockerfile, else the one shipped under that name.

    The manifest's is absolute, begins with `~/`, or lies below the home root; never in a repository. Raises BadManifest
    where it can't be read, is a link, or is others' to write.
    """
    named = None if settings is None else settings.dockerfile
    if named is None:
        return AgentImage(f"the {shipped} of this program", (files(__name__) / shipped).read_text("utf-8"))
    path = root / Path(named).expanduser()
    try:
        return AgentImage(str(path), read_ours(path, MAX_BYTES).decode("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise BadManifest(f"agent_provider.dockerfile {path} can't be read", hint="name a text file") from error
