"""The main job on real input: a runbook over three SSH hosts, every claim observed before it is printed."""
