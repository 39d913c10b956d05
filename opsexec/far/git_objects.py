"""Reading the objects of a quarantine, every one of them, whether a ref leads there or not."""

from __future__ import annotations

from opsexec.far.git_run import Declared, Refused, argv, environment, git

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class Entry:
    """One row of a tree."""

    __slots__ = ("mode", "name", "oid")

    def __init__(self, mode: bytes, name: bytes, oid: str) -> None:
        self.mode = mode
        self.name = name
        self.oid = oid

    @property
    def is_link(self) -> bool:
        """True where it names a submodule's commit, which needn't be anywhere."""
        return int(self.mode, 8) & 0o170000 == 0o160000


class Change:
    """One path as a commit leaves it; of a merge, only where it differs from every parent."""

    __slots__ = ("mode", "oid", "path")

    def __init__(self, mode: str, oid: str, path: bytes) -> None:
        self.mode = mode
        self.oid = oid
        self.path = path


def _env(declared: Declared, quarantine: str) -> dict[str, str]:
    """Return an environment in which the quarantine is all there is."""
    env = environment(declared, quarantine)
    del env["GIT_ALTERNATE_OBJECT_DIRECTORIES"]
    return env


def survey(declared: Declared, quarantine: str) -> list[tuple[str, str, int]]:
    """Return (oid, type, size) of every object a push brings; their content isn't read for that."""
    words = ["cat-file", "--batch-check", "--batch-all-objects", "--unordered", "--buffer"]
    status, out, text = git(words, _env(declared, quarantine))
    if status != 0:
        raise Refused("the objects can't be listed: " + text)
    rows = (line.split() for line in out.decode("ascii").splitlines())
    return [(row[0], row[1], int(row[2])) for row in rows]


def read(
    declared: Declared, quarantine: str, oids: Iterable[str], held: bool = False
) -> Iterator[tuple[str, str, bytes]]:
    """Yield (oid, type, content) of these objects of the push; `held`: of the mirror, too."""
    import subprocess
    import threading

    words = argv("cat-file", "--batch", "--buffer")
    env = environment(declared, quarantine) if held else _env(declared, quarantine)
    process = subprocess.Popen(words, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/")
    assert process.stdin is not None
    assert process.stdout is not None
    asked = "".join(oid + "\n" for oid in oids).encode()
    into, out = process.stdin, process.stdout

    def ask() -> None:
        with into:
            into.write(asked)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    with out:
        for _ in range(asked.count(b"\n")):
            oid, kind, *size = out.readline().decode("ascii").split()
            if not size:
                raise Refused(f"object {oid[:12]} can't be read")
            content = out.read(int(size[0]) + 1)
            if len(content) != int(size[0]) + 1:
                raise Refused(f"object {oid[:12]} can't be read whole")
            yield oid, kind, content[:-1]
    asking.join()
    if process.wait() != 0:
        raise Refused("the objects can't be read")


def tree_entries(content: bytes, oid_bytes: int) -> Iterator[Entry]:
    """Yield the rows of a tree object; raises Refused for what isn't one."""
    at = 0
    while at < len(content):
        space = content.find(b" ", at)
        end = content.find(b"\0", space)
        if space < 0 or end < 0 or end + 1 + oid_bytes > len(content):
            raise Refused("a tree in it is malformed")
        if at == space or content[at:space].strip(b"01234567"):
            raise Refused("a tree in it has a malformed mode")
        oid = content[end + 1 : end + 1 + oid_bytes]
        yield Entry(content[at:space], content[space + 1 : end], oid.hex())
        at = end + 1 + oid_bytes


def changes(declared: Declared, quarantine: str, commits: Iterable[str]) -> list[Change]:
    """Return what these commits change against their parents; of a path removed mode and oid are zeros."""
    words = ["diff-tree", "--stdin", "-r", "--root", "-c", "--raw", "-z", "--no-abbrev", "--no-renames"]
    words += ["--no-commit-id", "--no-ext-diff", "--no-textconv", "--ignore-submodules=none", "--diff-merges=combined"]
    asked = "".join(oid + "\n" for oid in commits).encode()
    if not asked:
        return []
    status, out, text = git(words, environment(declared, quarantine), asked)
    if status != 0:
        raise Refused("the commits can't be compared with their parents: " + text)
    found = []
    parts = iter(out.split(b"\0"))
    for part in parts:
        if not part.startswith(b":"):
            continue
        parents = len(part) - len(part.lstrip(b":"))
        fields = part[parents:].decode("ascii").split(" ")
        path = next(parts, b"")
        mode, oid = fields[parents], fields[2 * parents + 1]
        found.append(Change(mode, oid, path))
    return found
