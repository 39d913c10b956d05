"""An inventory whose values Python can't hold is a bad inventory, not a fault of this program."""

from __future__ import annotations

from pathlib import Path

import pytest

from opsexec.errors import BadInventory
from opsexec.inventory import Inventory


@pytest.mark.anyio
async def test_an_integer_of_thousands_of_digits_is_a_bad_inventory(tmp_path: Path) -> None:
    file = tmp_path / "hosts.toml"
    file.write_text("[hosts.a]\nurl = 'local:'\n[hosts.a.vars]\nx = " + "9" * 5000 + "\n")
    with pytest.raises(BadInventory, match="can't be read"):
        await Inventory.load(file)
