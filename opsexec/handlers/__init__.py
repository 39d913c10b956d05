"""Step -> host calls: one file per family, under the same names as in `opsexec.steps`."""
