"""A host that lacks programs, made honestly: logins get a mount namespace in which /usr/bin holds a few of them."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENOUGH = ("sh", "dash", "bash", "cat", "echo", "true", "sleep", "env", "id", "printf")


@contextlib.contextmanager
def bare_login(programs: Sequence[str] = ENOUGH, *, added: dict[str, str] | None = None) -> Iterator[str]:
    """An sshd_config line whose logins find these programs alone, and the scripts in `added` by name (needs root)."""
    with tempfile.TemporaryDirectory(prefix="bare-") as name:
        root = Path(name)
        root.chmod(0o755)
        bin_dir, empty = root / "bin", root / "empty"
        bin_dir.mkdir()
        empty.mkdir()
        for program in programs:
            shutil.copy2(f"/usr/bin/{program}", bin_dir / program)
        for program, script in (added or {}).items():
            (bin_dir / program).write_text(script)
            (bin_dir / program).chmod(0o755)
        force = root / "force"
        # What is mounted over was opened before: the shell that goes on is the one from before the mounts.
        force.write_text(
            "#!/bin/sh\n"
            f"export PATH={SEARCH_PATH}\n"  # without the additions of this machine's own profiles
            f"mount --bind {empty} /usr/local/bin\n"
            f"test -d /usr/local/sbin && mount --bind {empty} /usr/local/sbin\n"
            f"mount --bind {bin_dir} /usr/bin\n"
            'exec /usr/bin/sh -c "$SSH_ORIGINAL_COMMAND"\n'
        )
        force.chmod(0o755)
        yield f"ForceCommand unshare --mount --propagation private {force}"


def can_unshare() -> bool:
    """Whether mount namespaces can be made here."""
    done = subprocess.run(["unshare", "--mount", "--propagation", "private", "true"], capture_output=True, check=False)
    return done.returncode == 0
