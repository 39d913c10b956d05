"""The scan of a push: each object it brings, every name in it, in every view; what can't be read whole is refused."""

from __future__ import annotations

from opsexec.far import git_objects, git_policy, git_tokens, git_views
from opsexec.far.git_archives import Budget, members
from opsexec.far.git_run import Declared, Refused, told
from opsexec.far.known_values import KnownValues

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from opsexec.far.git_leaks import Gitleaks

MAX_DEPTH = 8
"""Layers of packing and encoding that are taken off; what still has one then is refused."""

MAX_SPELLED = 8
"""How often the writing of a text is undone with a look each time; what it comes to in the end is looked at as well.

A table of characters or the pixels of a picture, with rows of `%` or `=` before hex digits, take as often as a row is
long, and hold nothing.
"""

MAX_REASONS = 20
UNPACKED_BYTES = 1 << 30
UNPACKED_EACH = 128 << 20
VIEWED_BYTES = 4 << 30
MEMORY_BYTES = 6 << 30
CPU_S = 600


class Examination:
    """Looks at texts of one push. `more`: gets each text, for a second opinion."""

    def __init__(self, known: KnownValues, more: Callable[[str, bytes], None]) -> None:
        self._known = known
        self._more = more
        self._unpacked = Budget(UNPACKED_BYTES, UNPACKED_EACH)
        self._viewed = Budget(VIEWED_BYTES, VIEWED_BYTES)
        self._file = b""
        self._text = None  # type: bytes | None

    def examine(self, label: str, data: bytes) -> str | None:
        """Return what was found in `data`, None for nothing; raises Refused where it can't be looked into whole."""
        seen = set()  # type: set[int]
        pending = [(data, 0, 0, True)]
        self._file, self._text = data, None
        while pending:
            text, depth, spelled, whole = pending.pop()
            key = hash(text)
            if key in seen:
                continue
            seen.add(key)
            found = self._look(label, text)
            if found is not None:
                return found
            for inner, is_whole in self._inside(text, whole):
                if inner == text or not inner:
                    continue
                if not (whole or is_whole):
                    pending.append((self._spelled_out(inner, spelled), depth, spelled + 1, is_whole))
                    continue
                self._viewed.take(len(inner))
                if depth >= MAX_DEPTH:
                    found = self._look_at_threes(inner)
                    if found is not None:
                        return found
                    continue
                pending.append((inner, depth + 1, spelled, is_whole))
        return self._look_otherwise(data)

    def _spelled_out(self, text: bytes, times: int) -> bytes:
        """Return a text whose writing was undone so many times; from MAX_SPELLED on with nothing left to undo."""
        while True:
            self._viewed.take(len(text))
            again = git_views.plain(text) if times >= MAX_SPELLED else text
            if again == text:
                return text
            text = again

    def _text_of(self, data: bytes) -> bytes:
        """Return data's text; that of a whole file is asked for thrice, and finding it is most of the time there."""
        if self._file is not data:
            return git_views.text_of(data)
        if self._text is None:
            self._text = git_views.text_of(data)
        return self._text

    def _look(self, label: str, data: bytes) -> str | None:
        found = self._spot(data)
        if found is not None:
            return found
        text = self._text_of(data)
        name = self._known.find_scattered(text)
        if name is None and text is not data:
            name = self._known.find_scattered(data)  # also of stretches that are too short to be text
        if name is not None:
            return f"it holds {name} of this bottle, spread out"
        kind = git_tokens.find(git_views.joined(text))
        if kind is not None:
            return f"it holds a credential ({kind}), spread over lines"
        if text.strip():
            self._more(label, text)
        return None

    def _look_at_threes(self, text: bytes) -> str | None:
        """Look through what MAX_DEPTH layers leave where that is rows of threes; raises Refused for all else."""
        if not git_views.is_threes(text):
            raise Refused(f"it is packed or encoded more than {MAX_DEPTH} times over")
        for view in git_views.wrung(text):
            self._viewed.take(len(view))
            found = self._spot(view)
            if found is not None:
                return found
        return None

    def _spot(self, data: bytes) -> str | None:
        name = self._known.find(data)
        if name is not None:
            return f"it holds {name} of this bottle"
        kind = git_tokens.find(data)
        return None if kind is None else f"it holds a credential ({kind})"

    def _look_otherwise(self, data: bytes) -> str | None:
        """Look at the text backwards and rotated, and at what its encoded runs hold then."""
        for text in git_views.whole_views(self._text_of(data)):
            for view in (text, *git_views.decoded(text)):
                found = self._spot(view)
                if found is not None:
                    return found
        return None

    def _inside(self, data: bytes, whole: bool) -> Iterator[tuple[bytes, bool]]:
        """Yield what is one layer below, and whether it is something whole rather than one way to read it."""
        for name, content in members(data, self._unpacked, strict=whole):
            yield name.encode("utf-8", "surrogateescape"), True
            yield content, True
        yield git_views.plain(data), False
        for view in git_views.decoded(self._text_of(data)):
            yield view, True


class Scan:
    """One push being judged; what is wrong gathers in `reasons`, in words that hold nothing of what was found."""

    def __init__(self, declared: Declared, second: Gitleaks, request: dict[str, Any]) -> None:
        self._declared = declared
        self._quarantine = declared.held(str(request["quarantine"]))
        self._updates = [str(update) for update in request["updates"]]
        self._policy = git_policy.settings(declared)
        self._second = second
        self._examination = Examination(KnownValues(request.get("known", {})), self._second.add)
        self._paths = {}  # type: dict[str, bytes]
        self._tainted = set()  # type: set[bytes]
        self._full = False
        self.reasons = []  # type: list[str]

    def run(self) -> dict[str, Any]:
        """Judge it."""
        _limit_self()
        self._refs()
        listed = git_objects.survey(self._declared, self._quarantine)
        total = sum(size for _, _, size in listed)
        self._sizes(listed, total)
        if not self._full:
            self._changes([oid for oid, kind, _ in listed if kind == "commit"])
            self._objects([oid for oid, _, _ in listed])
            for label, rule in self._second.findings():
                self._refuse(label, f"gitleaks: {rule}")
        return {"accepted": not self.reasons, "reasons": self.reasons, "objects": len(listed), "bytes": total}

    def _refuse(self, what: str, why: str) -> None:
        text = f"{what}: {why}"
        if text in self.reasons:
            return
        if len(self.reasons) < MAX_REASONS:
            self.reasons.append(text)
        else:
            self._full = True

    def _check(self, what: str, data: bytes) -> bool:
        """Examine and tell; True where nothing was found."""
        try:
            found = self._examination.examine(what, data)
        except Refused as refused:
            found = str(refused)
        if found is not None:
            self._refuse(what, found)
        return found is None

    def _refs(self) -> None:
        named = "a ref's name"
        refs = [update.split(" ", 2)[2] for update in self._updates]
        short = "\n".join(ref.split("/", 2)[-1] for ref in refs)
        whole = "\n".join([*refs, short, short.replace("/", "")])
        if not self._check(named, whole.encode("utf-8", "surrogateescape")):
            return
        for update, ref in zip(self._updates, refs):
            try:
                refusals = list(git_policy.ref_refusals(self._declared, self._policy, self._quarantine, [update]))
            except Refused as refused:
                refusals = [str(refused)]
            for why in refusals:
                self._refuse(ref, why)

    def _sizes(self, listed: list[tuple[str, str, int]], total: int) -> None:
        policy = self._policy
        if len(listed) > policy["max_objects"]:
            self._refuse("the push", _over("objects", len(listed), policy["max_objects"]))
            self._full = True
        if total > policy["max_bytes"]:
            self._refuse("the push", _over("MiB", total >> 20, policy["max_bytes"] >> 20))
            self._full = True
        limit = policy["max_object_bytes"]
        for oid, kind, size in listed:
            if size > limit:
                self._refuse(f"{kind} {oid[:12]}", _over("MiB", size >> 20, limit >> 20))
                self._full = True

    def _changes(self, commits: list[str]) -> None:
        found = git_objects.changes(self._declared, self._quarantine, commits)
        unique = {change.path: change for change in found}
        text = b"\n".join(unique)
        if not self._check("path names", text + b"\n" + text.replace(b"/", b"")):
            self._tainted.update(unique)
        for change in found:
            self._paths.setdefault(change.oid, change.path)
            why = git_policy.path_refusal(self._policy, change)
            if why is not None:
                self._refuse(self._shown(change.path), why)
        self._modules(found)

    def _modules(self, changes: list[git_objects.Change]) -> None:
        """Judge what stands at these paths, also where the same bytes have another path or were there before."""
        paths = {each.oid: each.path for each in changes if each.mode.startswith("100") and git_policy.modules(each)}
        if not paths:
            return
        for oid, _, content in git_objects.read(self._declared, self._quarantine, paths, held=True):
            why = git_policy.modules_refusal(content)
            if why is not None:
                self._refuse(self._shown(paths[oid]), why)

    def _shown(self, path: bytes) -> str:
        if path in self._tainted:
            return "a path"
        text = path.decode("utf-8", "replace")
        return "".join(each if each.isprintable() else "?" for each in text)[:200]

    def _objects(self, oids: list[str]) -> None:
        for oid, kind, content in git_objects.read(self._declared, self._quarantine, oids):
            if self._full:
                return
            if kind == "tree":
                self._tree(oid, content)
            elif kind == "blob":
                self._blob(oid, content)
            else:
                what = f"{kind} {oid[:12]}"
                self._check(what, content)
                if not self._policy["signatures"] and git_policy.SIGNED.search(content):
                    self._refuse(what, "it is signed, and the gate can't vouch for whose signature that is")

    def _tree(self, oid: str, content: bytes) -> None:
        entries = list(git_objects.tree_entries(content, len(oid) // 2))
        self._check(f"a file name in tree {oid[:12]}", b"\n".join(entry.name for entry in entries))
        links = [entry.oid.encode() for entry in entries if entry.is_link]  # any bytes: no object is asked for
        self._check(f"a submodule in tree {oid[:12]}", b"\n".join(links))

    def _blob(self, oid: str, content: bytes) -> None:
        path = self._paths.get(oid)
        what = self._shown(path) if path is not None else f"blob {oid[:12]}"
        why = git_policy.blob_refusal(self._policy, content)
        if why is not None:
            self._refuse(what, why)
        self._check(what, content)


def _over(unit: str, count: int, most: int) -> str:
    return f"it has {count} {unit}, and {most} is the most"


def _limit_self() -> None:
    """Bound this process, and the gits it starts from here on; gitleaks is bounded by what it is fed."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main(request: dict[str, Any], second: Gitleaks) -> dict[str, Any]:
    """`{place, quarantine, updates, known}` -> `{accepted, reasons, objects, bytes}`.

    `second`: the scanner, started. Without a quarantine the push is told on the input, or there is none.
    """
    declared = Declared(request["place"])
    if request["quarantine"] is None:
        word = told()
        if word is None:
            return {"accepted": False, "reasons": ["there was no push"], "objects": 0, "bytes": 0}
        request = dict(request, **word)
    return Scan(declared, second, request).run()
