"""Checking a config file in a process of its own, so that the daemon never loads what checks it.

pydantic is 10 MB and 0.15 s; it is needed for a moment, at start and at each reload. What comes back has the attributes
of `agent.config.Config`, and was checked by it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

import msgspec

from agent.address import Address
from agent.errors import AgentUnable, BadConfig
from opsexec.capability import CapabilitySet

if TYPE_CHECKING:
    from agent.config import Config

CHECK_S = 30.0
ROOT = str(Path(__file__).parents[1])
_START = "import sys; sys.path[:] = {path!r}; from agent.config_child import main; main(sys.argv[1])"


class ConfigCheck:
    """One check under way. Nothing is waited for before `result`."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    @classmethod
    def start(cls, file: Path) -> Self:
        """Start to check a file; raises AgentUnable."""
        path = [ROOT, *(each for each in sys.path if each)]  # what is loaded here may lie where -I doesn't look
        argv = [sys.executable, "-I", "-X", "utf8", "-c", _START.format(path=path), str(file)]
        try:
            # In a group of its own: a terminal that goes tells the agent's, which takes it as a word to reload.
            return cls(subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, process_group=0))
        except OSError as error:
            hint = "is the host out of memory?"
            raise AgentUnable(f"the config can't be checked: {error.strerror}", hint=hint) from error

    def result(self) -> Config:
        """Wait for the configuration, at most CHECK_S seconds; raises BadConfig, AgentUnable."""
        try:
            data, _ = self._process.communicate(timeout=CHECK_S)
        except subprocess.TimeoutExpired as error:
            self._process.kill()
            self._process.communicate()
            raise AgentUnable(f"the config was not checked within {CHECK_S:g} s", hint="is its disk there?") from error
        try:
            answer = msgspec.json.decode(data)
        except msgspec.DecodeError as error:
            status = self._process.returncode
            raise AgentUnable(f"the config can't be checked (exit status {status})", hint="see its stderr") from error
        if "error" in answer:
            message, hint = answer["error"]
            raise BadConfig(message, hint=hint)
        return cast("Config", _Config(answer["config"]))


def main(file: str) -> None:
    """Check a file, and print what is in it, or what is wrong with it, as JSON."""
    from agent.config import load_config

    try:
        answer: dict[str, Any] = {"config": load_config(file).model_dump(mode="json")}
    except BadConfig as error:
        answer = {"error": [error.message, error.hint]}
    rest = memoryview(msgspec.json.encode(answer))
    with suppress(BrokenPipeError):  # who asked has ended: an agent that can't be loaded
        while rest:
            rest = rest[os.write(1, rest) :]


class _Table:
    """A table of the file: its keys are attributes."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.__dict__.update(
            {name: _Table(value) if isinstance(value, dict) else value for name, value in values.items()}
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Table) and self.__dict__ == other.__dict__


class _Agent(_Table):
    @property
    def addresses(self) -> tuple[Address, ...]:
        """As `AgentTable.addresses`."""
        return tuple(Address.parse(each) for each in self.__dict__["listen"])


class _Grant(_Table):
    @property
    def capability_set(self) -> CapabilitySet:
        """As `Grant.capability_set`."""
        limits = {name: self.__dict__[name] for name in ("run_as", "max_timeout_s", "max_output_bytes")}
        return CapabilitySet.of(*self.__dict__["capabilities"], **limits)


class _Config(_Table):
    def __init__(self, values: dict[str, Any]) -> None:
        super().__init__(values)
        self.agent = _Agent(values["agent"])
        self.grants = [_Grant(each) for each in values["grants"]]
