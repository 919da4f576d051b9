"""Starts the program in as little memory as it needs.

``dataclasses`` brings ``inspect`` along, and with it what takes Python apart, only to write signatures into docstrings:
more than a megabyte in each guest, for its whole life. While the shim's modules are imported something small is in its
place. Must run on Python 3.9 with the standard library alone, and must be imported before anything else of the shim.
"""

from __future__ import annotations

import sys
from types import ModuleType


def program() -> ModuleType:
    """:mod:`guest_shim.cli`, imported."""
    lean = "inspect" not in sys.modules
    if lean:
        small = ModuleType("inspect")
        small.__dict__["signature"] = lambda _class: "()"
        sys.modules["inspect"] = small
    try:
        from guest_shim import cli
    finally:
        if lean:
            del sys.modules["inspect"]  # whoever needs the real one gets it
    return cli


def main() -> int:
    """Run it; the exit status."""
    return int(program().main())
