"""Coding agents in sealed bottles: empty until it arrives with the bottle manifest and launcher."""
