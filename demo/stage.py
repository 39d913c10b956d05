"""What the demo stands on: three hosts with an inventory, an audit log, and nothing outside one temporary directory."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from demo.command import Opsexec
from demo.host import DemoHost
from tests.parts.sshd import Sshd
from tests.parts.unix_user import current_user

HERE = Path(__file__).parent
PLACES = (("web1", "dev", "127.0.0.11"), ("web2", "staging", "127.0.0.12"), ("web3", "prod", "127.0.0.13"))


@dataclass(frozen=True)
class Stage:
    """The hosts, the command line that reaches them, and where things are."""

    directory: Path
    hosts: tuple[DemoHost, ...]
    opsexec: Opsexec
    audit: Path
    journals: Path
    token: str
    runbook: str = str(HERE / "promote.yaml")


@contextmanager
def open_stage() -> Iterator[Stage]:
    """Set everything up; afterwards services and servers are ended and the directory is removed.

    Raises SshdMissing, SshdFailed.
    """
    with ExitStack() as stack:
        directory = Path(tempfile.mkdtemp(prefix="opsexec-demo-")).resolve()
        stack.callback(shutil.rmtree, directory)
        directory.chmod(0o755)
        hosts = []
        for name, tier, address in PLACES:
            root = directory / name
            root.mkdir()
            host = DemoHost(name, tier, address, root, stack.enter_context(Sshd(listen=[address])))
            stack.callback(host.stop_daemon)
            hosts.append(host)
            print(f"  {name}: sshd on {address}:{host.sshd.port}, {host.sshd.host_fingerprint()}, tier {tier}")
        inventory = directory / "inventory.toml"
        inventory.write_text("\n".join(host.inventory(current_user()) for host in hosts))
        token = secrets.token_hex(16)
        audit, state = directory / "audit.jsonl", directory / "state"
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH")])),
            "HOME": str(directory),
            "OPSEXEC_INVENTORY": str(inventory),
            "OPSEXEC_AUDIT": str(audit),
            "XDG_STATE_HOME": str(state),
            "DEMO_TOKEN": token,
        }
        opsexec = Opsexec(environment, directory)
        yield Stage(directory, tuple(hosts), opsexec, audit, state / "opsexec" / "runs", token)
