"""Providers: each returns, as data, what a coding agent needs in a bottle. Backends interpret it."""
