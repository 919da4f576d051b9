"""What this shim can do: puts the handlers of all verbs into one dispatcher. Add yours here.

Must run on Python 3.9 with the standard library alone.
"""

from __future__ import annotations

from guest_shim.clock import Clock
from guest_shim.dispatch import Dispatcher


def make_dispatcher() -> Dispatcher:
    """A dispatcher with every verb that a guest offers."""
    dispatcher = Dispatcher()
    Clock().register(dispatcher)
    return dispatcher
