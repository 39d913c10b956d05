"""Supervise: an MCP server by which the agent asks its operator for more. It decides nothing and keeps nothing."""
