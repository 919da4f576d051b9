"""Shares of CPU, RAM, storage and network: plan, check, apply, read back, undo."""
