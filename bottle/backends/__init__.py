"""Backends: a plan as Steps, for one isolation engine each."""
