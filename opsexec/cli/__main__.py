"""`python -m opsexec.cli`: the command line, where the `opsexec` script is not on PATH."""

from __future__ import annotations

import sys

from opsexec.cli import main

sys.exit(main())
