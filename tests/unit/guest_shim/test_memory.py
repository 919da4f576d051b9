"""Freed memory is kept, and given back after a while."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from guest_shim.memory import GivingBack

#: Frees 3 MiB again and again, in blocks that glibc would get from the kernel each for itself, and tells the faults of
#: the last time.
FREES = """
import resource, sys
from guest_shim.memory import GIVE_BACK, GivingBack, keep_freed_memory
how, now = sys.argv[1], 0.0
if how != "does not keep":
    assert keep_freed_memory()
pause = GivingBack(lambda seconds: False, lambda: now)
for _ in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    pieces = [bytes(range(256)) * 800 for _ in range(15)]
    del pieces
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    if how == "gives back":
        now += GIVE_BACK
    assert not pause(1.0)
print(faults)
"""


def faults(how: str) -> int:
    """Pages that had to be asked for."""
    argv = [sys.executable, "-c", FREES, how]
    done = subprocess.run(argv, cwd=Path(__file__).parents[3], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_memory_is_not_asked_for_again_and_again() -> None:
    """Three MiB are 750 pages."""
    assert faults("keeps") < 50 < faults("does not keep")


def test_what_is_free_is_given_back_now_and_then() -> None:
    """An idle shim is small again."""
    assert faults("gives back") > 50


def test_each_pause_waits() -> None:
    """As long as it is told, and says what the wait says."""
    waited: list[float] = []

    def wait(seconds: float) -> bool:
        waited.append(seconds)
        return seconds == 2.0

    pause = GivingBack(wait)
    assert not pause(1.0)
    assert pause(2.0)
    assert waited == [1.0, 2.0]
