"""What the kernel's errors are called when they cross back: one table, used by every operation."""

from __future__ import annotations

import errno

from opsexec.far.message import FarError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

CODES = {
    errno.ENOENT: "not_found",
    errno.EACCES: "permission",
    errno.EPERM: "permission",
    errno.EEXIST: "exists",
    errno.ENOTDIR: "not_directory",
    errno.EISDIR: "is_directory",
    errno.ENOTEMPTY: "not_empty",
    errno.ENOSPC: "no_space",
    errno.EDQUOT: "no_space",
    errno.EFBIG: "no_space",
    errno.EROFS: "read_only",
    errno.ELOOP: "raced",
    errno.ENAMETOOLONG: "bad_path",
    errno.EBUSY: "busy",
    errno.EMFILE: "exhausted",
    errno.ENFILE: "exhausted",
    errno.ENOMEM: "exhausted",
}
"""errno -> code. ELOOP comes only from O_NOFOLLOW here: a link took the place of what the walk had seen."""


def fault(error: OSError, what: str) -> FarError:
    """Return the FarError for a kernel error; `what` says what was tried, like "read /etc/motd"."""
    code = CODES.get(error.errno or 0, "io")
    name = errno.errorcode.get(error.errno or 0, "unknown error")
    return FarError(code, f"can't {what}: {error.strerror or name}", name)


TRIES = 64
"""How often an operation is begun again when what it acts on keeps changing under it."""


def named(operation: Callable[[list[bytes]], list[bytes]], what: str) -> Callable[[list[bytes]], list[bytes]]:
    """Wrap an operation whose first argument is a path: a kernel error says what was tried on which path.

    An operation that lost a race (`raced`) changed nothing and is begun again.
    """

    def call(args: list[bytes]) -> list[bytes]:
        path = args[0].decode("utf-8", "backslashreplace") if args else ""
        for _ in range(TRIES):
            try:
                return operation(args)
            except OSError as error:
                problem = fault(error, f"{what} {path}".rstrip())
                if problem.code != "raced":
                    raise problem from error
            except FarError as error:
                if error.code != "raced":
                    raise
            except ValueError as error:
                raise FarError("bad_request", f"can't {what} {path[:80]}: {error}") from error
        raise FarError("raced", f"{path} kept changing while it was used: {TRIES} tries")

    return call
