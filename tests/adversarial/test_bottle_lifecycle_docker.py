"""A bottle's life on docker: resumed, changed between being shown and being started, poisoned, left with its lock.

The tests that are imported are those of bubblewrap's bottles; `backend` is another here. LC1 and LC7 are in
test_bottle_docker.py: what a killed launcher leaves there, and an engine that restarts, are an engine's own.
"""

from __future__ import annotations

import pytest

from tests.adversarial.test_bottle_lifecycle import (  # noqa: F401  # tests and fixtures are found by name
    bottle,
    bottles,
    stage,
    test_lc3_a_resume_shows_what_of_the_manifests_is_another_by_now,
    test_lc4_ws1_a_resume_doesn_t_write_through_what_the_agent_left,
    test_lc8_a_backend_that_hangs_doesn_t_hold_up_the_list,
    test_lc10_a_lock_whose_holder_is_gone_holds_nobody_up,
    test_mf9_a_skill_that_changed_at_the_question_doesn_t_start,
    test_mf9_what_was_shown_is_what_runs_though_the_manifest_changed_at_the_question,
)
from tests.parts.bottle_backends import Name

pytestmark = pytest.mark.timeout(240)  # a first test starts an engine too, a last one takes it away


@pytest.fixture(scope="module")
def backend() -> Name:
    return "docker"
