"""What `register` keeps of a step: plain JSON data that conditions and texts can refer to."""

from __future__ import annotations

from typing import Any

from opsexec.executor import RunOutput


def registered(output: RunOutput | None, *, failed: bool = False, **more: Any) -> dict[str, Any]:
    """Return the variable a step's result becomes.

    `stdout` and `stderr` are the kept tails (64 KiB) as text without a final newline, as a shell's $(...)
    has them.
    """
    value: dict[str, Any] = {
        "exit_code": None,
        "signal": None,
        "stdout": "",
        "stderr": "",
        "changed": False,
        "skipped": None,
        "failed": failed,
        "truncated": False,
        "duration_s": 0.0,
        "value": None,
        "error": None,
    }
    if output is not None:
        value.update(
            exit_code=output.exit_code,
            signal=output.signal,
            stdout=_text(output.stdout),
            stderr=_text(output.stderr),
            changed=output.changed,
            skipped=output.skipped,
            truncated=output.truncated,
            duration_s=output.duration_s,
            value=output.value,
        )
    return {**value, **more}


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace").removesuffix("\n")
