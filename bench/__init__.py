"""Benchmarks of opsexec beside its peers: `python -m bench --list` names the rows."""
