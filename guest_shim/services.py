"""What this shim can do: puts the handlers of all verbs into one dispatcher. Add yours here.

Must run on Python 3.9 with the standard library alone.
"""

from __future__ import annotations

from guest_shim.clock import Clock
from guest_shim.dispatch import Dispatcher
from guest_shim.management import Management
from guest_shim.places import Places


def make_dispatcher(places: Places = Places()) -> Dispatcher:  # noqa: B008 - immutable
    """A dispatcher with every verb that a guest offers; ``places`` are the guest's own unless it is a simulated one."""
    dispatcher = Dispatcher()
    Clock().register(dispatcher)
    Management(places).register(dispatcher)
    return dispatcher
