"""Where each git program begins: one JSON request in, one JSON answer out, and a refusal is an answer too."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def _fetch(request: dict[str, Any]) -> dict[str, Any]:
    from opsexec.far import git_fetch

    return git_fetch.main(request)


def _forward(request: dict[str, Any]) -> dict[str, Any]:
    from opsexec.far import git_forward

    return git_forward.main(request)


PROGRAMS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {"fetch": _fetch, "forward": _forward}


def _answer(name: str, words: list[str], request: bytes) -> dict[str, Any]:
    """Do what is asked; `words`: what a scan starts its scanner with. All else is imported beside that start."""
    if name == "scan":
        from opsexec.far.git_leaks import Gitleaks

        second = Gitleaks(*words)
        import json

        from opsexec.far import git_scan

        return git_scan.main(json.loads(request), second)
    import json

    return PROGRAMS[name](json.loads(request))


def run(title: str, request: bytes) -> int:
    """Do it; the answer is `{"ok": true, ...}` or `{"ok": false, "reason"}`. Any other end is no answer.

    `title`: which, and of a scan, each behind a NUL, the repository's directory and the scanner. A login that an answer
    brings along is held until the input ends.
    """
    import sys

    from opsexec.far.git_run import Refused

    name, *words = title.split("\0")
    try:
        answer = dict(_answer(name, words, request), ok=True)
    except Refused as refused:
        answer = {"ok": False, "reason": str(refused)}
    except OSError as error:
        answer = {"ok": False, "reason": "{}: {}".format(error.strerror, os.path.basename(str(error.filename or "")))}
    except MemoryError:
        answer = {"ok": False, "reason": "more memory was needed than the gate gives"}
    import json

    line = answer.pop("line", None)
    sys.stdout.write(json.dumps(answer))
    sys.stdout.flush()
    if line is not None:
        with line:
            while sys.stdin.buffer.read(4096):
                pass
    return 0
