"""The checks themselves, a module or two for each family."""
