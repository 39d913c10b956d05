"""The contestants: each is run as a program of its own, with the Python of the environment it lives in."""
