"""Runs in dom0: does something to a domain, then tells how long after the event the agent's State was right.

    probe.py VMID STATE SECONDS COMMAND…   STATE as virmoctl names it; RUNNING means: runs again, in another domain

The event is what Xen says of the domain, looked at directly; State is what the agent's control socket says. Prints a
JSON object: ``happened`` and ``followed`` (seconds since the command began, null: not within SECONDS), ``delay``
between them, and the ``states`` that were seen.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from typing import Any
from uuid import UUID

from dom0_agent.control_client import DEFAULT_SOCKET, call
from dom0_agent.hypervisor.interface import DomainInfo, DomainState
from dom0_agent.hypervisor.libxc import Libxc, load_library

POLL = 0.03
ALIVE = (DomainState.RUNNING, DomainState.PAUSED)


def main(vmid: str, wanted: str, seconds: float, command: list[str]) -> None:
    """See above."""
    libxc = Libxc(load_library("4.17"))

    def domain() -> DomainInfo | None:
        found = [d for d in libxc.domains() if d.uuid == UUID(vmid) and d.state is not DomainState.DYING]
        return found[0] if found else None

    first = domain()
    began = time.monotonic()
    failed: list[str] = []

    def act() -> None:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            failed.append(done.stdout + done.stderr)

    threading.Thread(target=act).start()
    told: dict[str, Any] = {"happened": None, "followed": None, "delay": None, "states": []}
    while (now := time.monotonic()) < began + seconds:
        seen = domain()
        same = seen is not None and first is not None and seen.domid == first.domid
        alive = same and seen is not None and seen.state in ALIVE
        if told["happened"] is None and not alive:
            told["happened"] = now - began
        rows = call(DEFAULT_SOCKET, "vm.list", 30.0)
        state = next((row["state"] for row in rows if row["vmid"] == vmid), None)
        if [state] != told["states"][-1:]:
            told["states"].append(state)
        again = seen is not None and not same and seen.state is DomainState.RUNNING
        if told["happened"] is not None and state == wanted and (wanted != "RUNNING" or again):
            told["followed"] = time.monotonic() - began
            told["delay"] = told["followed"] - told["happened"]
            break
        time.sleep(POLL)
    told["failed"] = "; ".join(failed)
    print(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), sys.argv[4:])
