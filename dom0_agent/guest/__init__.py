"""Channels to the shims inside guests."""
