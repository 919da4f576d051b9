"""HTTP API of the VirMO Server for operators and their tools."""
