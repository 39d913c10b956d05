"""An ansible stdout callback that prints nothing but how long the tasks took, as one JSON line."""

from __future__ import annotations

import json
import time
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: clock
type: stdout
short_description: one JSON line with the time of the play
description: Counts results, and takes the time from the first task that is not called "warm".
"""


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "clock"

    def __init__(self) -> None:
        super().__init__()
        self.begin = self.start = 0.0
        self.warm = False
        self.good = self.errors = 0

    def v2_playbook_on_play_start(self, play: Any) -> None:
        self.begin = time.perf_counter()

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        self.warm = task.get_name().endswith("warm")
        if not self.warm and not self.start:
            self.start = time.perf_counter()

    def v2_runner_on_ok(self, result: Any, **kwargs: Any) -> None:
        self.good += not self.warm

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self.errors += 1

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self.errors += 1

    def v2_playbook_on_stats(self, stats: Any) -> None:
        end = time.perf_counter()
        fields = {
            "steps_s": end - self.start,
            "total_s": end - self.begin,
            "ok": self.good,
            "errors": self.errors,
        }
        print(json.dumps(fields), flush=True)
