"""The commands of `bottle`, one file per thing that they are about. Loaded when one is run, never for `--help`."""
