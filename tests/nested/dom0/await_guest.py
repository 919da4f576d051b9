"""Runs in dom0: waits until a VM's guest has spoken, and prints its boot id.

    await_guest.py VMID SECONDS [BOOT]    BOOT: the id of a boot that is not meant

One process for the whole wait: a ``virmoctl`` for each look would take from the guest the processor that it boots on.
"""

from __future__ import annotations

import sys
import time

from dom0_agent.control_client import DEFAULT_SOCKET, call

POLL = 0.5


def main(vmid: str, seconds: float, not_boot: str | None = None) -> int:
    """See above. Status 1: not in time, and prints what there is of the VM."""
    end = time.monotonic() + seconds
    while True:
        shown = call(DEFAULT_SOCKET, "vm.show", 120.0, vm=vmid)
        boot_id = shown.get("guest_boot_id")
        if boot_id not in (None, not_boot) and shown.get("guest_beats") is not None:
            print(boot_id)
            return 0
        if time.monotonic() > end:
            print(shown)
            return 1
        time.sleep(POLL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], float(sys.argv[2]), *sys.argv[3:]))
