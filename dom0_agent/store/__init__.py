"""SQLite: what survives a restart of the agent."""
