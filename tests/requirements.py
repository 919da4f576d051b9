"""Prints what the tests need from PyPI: the distribution's requirements and its extras, from setup.cfg, one a line."""

from __future__ import annotations

import configparser
from pathlib import Path

EXTRAS = ("server", "test")


def requirements() -> list[str]:
    """Sorted and without duplicates; white space inside a requirement is removed, so that each is one word."""
    config = configparser.ConfigParser()
    config.read(Path(__file__).parent.parent / "setup.cfg", encoding="utf-8")
    blocks = [config["options"]["install_requires"], *(config["options.extras_require"][extra] for extra in EXTRAS)]
    return sorted({line.replace(" ", "") for block in blocks for line in block.splitlines() if line.strip()})


if __name__ == "__main__":
    print("\n".join(requirements()))
