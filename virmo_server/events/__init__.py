"""What changed, as a stream that operators and their tools can follow."""
