"""Runs in dom0: waits until the agent is at some work, and says so at once.

    await_work.py vm STEP SECONDS       a VM's operation is at this step
    await_work.py image PERCENT SECONDS a download has come this far

Prints a line as soon as the agent answers, so that the work may be ordered, and another one when it has come so far.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from dom0_agent.control_client import DEFAULT_SOCKET, call

POLL = 0.02


def reached(kind: str, wanted: str, rows: list[dict[str, Any]]) -> bool:
    """Whether it is so now."""
    if kind == "vm":
        return any(row["running_step"] == wanted for row in rows)
    return any(row["state"] == "DOWNLOADING" and row["progress"] >= int(wanted) for row in rows)


def main(kind: str, wanted: str, seconds: float) -> int:
    """See above."""
    end = time.monotonic() + seconds
    said = False
    while time.monotonic() < end:
        rows = call(DEFAULT_SOCKET, f"{kind}.list", 30.0)
        if not said:
            said = True
            print("waiting", flush=True)
        if reached(kind, wanted, rows):
            print("reached", flush=True)
            return 0
        time.sleep(POLL)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], float(sys.argv[3])))
