"""Runs in dom0: waits until the agent has come to something, and says so at once.

    await_work.py vm STEP SECONDS           a VM's operation is at this step
    await_work.py image PERCENT SECONDS     a download has come this far
    await_work.py state VMID=STATE SECONDS  a VM is in this State
    await_work.py idle - SECONDS            it is there, and has nothing to do

Prints a line as soon as the agent answers, so that the work may be ordered, and another one when it has come so far.
One process for the whole wait: a ``virmoctl`` for each look would take the processor from what is waited for.
"""

from __future__ import annotations

import sys
import time

from dom0_agent.control_client import DEFAULT_SOCKET, ControlError, call

#: Seconds between looks for what passes, and for what stays.
SHORT_POLL, POLL = 0.02, 0.5
PASSING = ("vm", "image")


def reached(kind: str, wanted: str) -> bool:
    """Whether it is so now."""
    if kind == "image":
        rows = call(DEFAULT_SOCKET, "image.list")
        return any(row["state"] == "DOWNLOADING" and row["progress"] >= int(wanted) for row in rows)
    rows = call(DEFAULT_SOCKET, "vm.list")
    if kind == "idle":
        return all(row["running_step"] is None for row in rows)
    if kind == "state":
        return wanted in (f"{row['vmid']}={row['state']}" for row in rows)
    return any(row["running_step"] == wanted for row in rows)


def main(kind: str, wanted: str, seconds: float) -> int:
    """See above. Status 1: not in time."""
    end = time.monotonic() + seconds
    said = False
    while time.monotonic() < end:
        try:
            there = reached(kind, wanted)
        except ControlError:  # it is starting
            there = False
        else:
            if not said:
                said = True
                print("waiting", flush=True)
        if there:
            print("reached", flush=True)
            return 0
        time.sleep(SHORT_POLL if said and kind in PASSING else POLL)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], float(sys.argv[3])))
