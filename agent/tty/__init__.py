"""Terminals through the agent: opened with the host's consent, recorded or not at all, watched by who may."""
