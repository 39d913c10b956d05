"""What can be wrong with an agent before it serves anyone."""

from __future__ import annotations

from opsexec.errors import OpsError, UsageError


class BadConfig(UsageError):
    """A config file that can't be used; the message starts with file:line."""

    code = "bad_config"


class AgentUnable(OpsError):
    """The agent can't do its work here: a socket, a directory or another agent stands in its way."""

    code = "agent_unable"
    exit_code = 3
