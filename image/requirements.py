"""Prints what is needed from PyPI: the distribution's requirements and the extras named as arguments, one a line."""

from __future__ import annotations

import configparser
import sys
from collections.abc import Sequence
from pathlib import Path

SETUP = Path(__file__).resolve().parent.parent / "setup.cfg"


def requirements(extras: Sequence[str]) -> list[str]:
    """Sorted, without duplicates; white space inside a requirement is removed, so that each is one word."""
    config = configparser.ConfigParser()
    config.read(SETUP, encoding="utf-8")
    blocks = [config["options"]["install_requires"], *(config["options.extras_require"][extra] for extra in extras)]
    return sorted({"".join(line.split()) for block in blocks for line in block.splitlines() if line.strip()})


if __name__ == "__main__":
    print("\n".join(requirements(sys.argv[1:])))
