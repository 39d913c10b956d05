"""What an agent did to its copy of a directory, and how that comes back. No git is run on it.

Read `tree` for what a state is, `protected` for what is held back, `patch` for how the rest looks, `apply` for the way
into the directory.
"""
