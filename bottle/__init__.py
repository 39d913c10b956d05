"""Coding agents in sealed bottles: manifest -> plan -> Steps -> Executor."""
