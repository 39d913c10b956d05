"""What a bottle can complain about beyond the executor library's own errors."""

from __future__ import annotations

from opsexec.errors import OpsError, UsageError


class BadManifest(UsageError):
    """A manifest that can't be taken as it stands; the message starts with file:line where there is one."""

    code = "bad_manifest"


class CredentialMissing(UsageError):
    """A value that the manifest asks of the launcher isn't there, or isn't fit to be sent."""

    code = "credential_missing"


class NoSuchBottle(UsageError):
    """No state is kept under this identity."""

    code = "no_such_bottle"


class BottleUnreadable(NoSuchBottle):
    """There is a bottle of this identity, and what is kept of it can't be read: its home may hold work all the same."""

    code = "bottle_unreadable"


class BottleRunning(OpsError):
    """Somebody holds this bottle already."""

    code = "bottle_running"


class LaunchFailed(OpsError):
    """A bottle didn't come up, or ended before its agent did."""

    code = "launch_failed"


class PolicyInDoubt(LaunchFailed):
    """Neither a new policy nor the old one is known to be in force: the bottle can't go on."""

    code = "policy_in_doubt"


class HostUnready(OpsError):
    """This host lacks a part that the bottle needs."""

    code = "host_unready"
    exit_code = 3
