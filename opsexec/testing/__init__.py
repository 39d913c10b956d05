"""For your own tests: a host that exists only in memory, and an executor over it.

    host = FakeHost(files={"/etc/motd": b"hi\\n"}, answers={"systemctl show **": "ActiveState=active\\n"})
    async with fake_executor(host) as ex:
        await ex.run(WriteFile(path="/etc/motd", content="hello\\n"))
    assert host.calls == [["write_file", "/etc/motd"]]

Capabilities, audit and handlers are the real ones; only the machine is not.
"""

from __future__ import annotations

from opsexec.testing.answers import Answer, NoAnswer
from opsexec.testing.executor import MemoryAudit, fake_executor
from opsexec.testing.host import FakeHost, FakeTerminal
from opsexec.testing.tree import FakeNode, FakeTree

__all__ = [
    "Answer",
    "FakeHost",
    "FakeNode",
    "FakeTerminal",
    "FakeTree",
    "MemoryAudit",
    "NoAnswer",
    "fake_executor",
]
