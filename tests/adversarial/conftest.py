"""The real parts that attacks run against are those of the integration tests."""

from __future__ import annotations

from tests.integration.conftest import (  # fixtures are found by name in this file
    audit as audit,
)
from tests.integration.conftest import (
    local as local,
)
from tests.integration.conftest import (
    plain_user as plain_user,
)
from tests.integration.conftest import (
    shared_dir as shared_dir,
)
from tests.integration.conftest import (
    ssh_root as ssh_root,
)
from tests.integration.conftest import (
    ssh_target as ssh_target,
)
from tests.integration.conftest import (
    ssh_user as ssh_user,
)
from tests.integration.conftest import (
    sshd as sshd,
)
from tests.integration.conftest import (
    target as target,
)
