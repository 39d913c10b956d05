"""The test suites; a package so that `tests.parts` is importable from the repository root."""
