"""What the C library does with memory that is freed. Another library than glibc does as it likes.

Must run on Python 3.9 with the standard library alone.
"""

from __future__ import annotations

import ctypes
import gc
import time
from collections.abc import Callable

#: Bytes that are kept for the next long message, and the size of a block from which on it is not.
KEPT = 4 * 1024 * 1024
#: Seconds after which an idle shim gives back what it kept.
GIVE_BACK = 30.0
#: glibc's names (malloc.h).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def keep_freed_memory(kept: int = KEPT) -> bool:
    """Have freed memory kept instead of given back to the kernel at once; ``False`` where the C library cannot.

    To get a page again costs a paravirtualised machine, as dom0 is one, more than to copy many: a message of 1 MiB took
    twice as long.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(option, kept) == 1 for option in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD))


def give_back_start() -> None:
    """Return the memory that starting took: the shim idles most of its life."""
    gc.collect()
    gc.freeze()
    _trim()


class GivingBack:
    """A wait that gives back every now and then what is free."""

    def __init__(self, wait: Callable[[float], bool], clock: Callable[[], float] = time.monotonic) -> None:
        self._wait = wait
        self._clock = clock
        self._next = clock() + GIVE_BACK

    def __call__(self, seconds: float) -> bool:
        """Wait so long; what the wait returns."""
        if self._clock() >= self._next:
            self._next = self._clock() + GIVE_BACK
            _trim()
        return self._wait(seconds)


def _trim() -> None:
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
