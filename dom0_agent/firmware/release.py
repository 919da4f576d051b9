"""What the system that runs says of itself: /etc/virmo-release of a board's slot."""

from __future__ import annotations

from pathlib import Path

RELEASE = Path("/etc/virmo-release")


def release_version(file: Path = RELEASE) -> str:
    """DevDetail/FwV; empty where there is no such file."""
    if not file.is_file():
        return ""
    pairs = (line.partition("=") for line in file.read_text("utf-8").splitlines())
    return {name: value for name, _, value in pairs}.get("VERSION", "")
