"""A clock for time-outs, cheap everywhere: the monotonic one as the kernel's last tick left it, 1 to 10 ms ago.

``time.monotonic`` is a system call where the clock source cannot be read without the kernel, as in a Xen PV guest (dom0
is one) on a processor whose TSC does not promise to be steady; to ask whether a deadline is over must not cost that.
Must run on Python 3.9 with the standard library alone.
"""

from __future__ import annotations

import time

#: Linux's numbers; Python has no names for them.
_CLOCK_REALTIME_COARSE, _CLOCK_MONOTONIC_COARSE = 5, 6


def monotonic() -> float:
    """Seconds, never going back. As :func:`time.monotonic`, from which it is never more than a tick behind."""
    return time.clock_gettime(_CLOCK_MONOTONIC_COARSE)


def wall() -> float:
    """Seconds since the epoch. As :func:`time.time`, a tick behind at most."""
    return time.clock_gettime(_CLOCK_REALTIME_COARSE)
