"""The operator's web console: pages over the same operations as the HTTP API, for people instead of programs."""
