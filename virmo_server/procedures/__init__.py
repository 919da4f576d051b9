"""The multi-step procedures of the specification (chapters 10 and 11), as tables of steps without I/O."""
