"""``python -m dom0_agent.hypervisor.sim --state-dir DIR …``: look at a simulated machine, and play tricks on it.

What ``xl`` is for real Xen: a way to see the truth that does not go through the agent. It only reads the ledger and
sends commands to the domains' processes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from dom0_agent.hypervisor.sim.faults import BEHAVIOURS, Fault, FaultTable
from dom0_agent.hypervisor.sim.ledger import Entry, Ledger, look, read_json, write_json


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m dom0_agent.hypervisor.sim", description=__doc__)
    parser.add_argument("--state-dir", type=Path, required=True)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="the domains, as JSON lines").add_argument("uuid", nargs="?")
    commands.add_parser("info", help="the machine, as JSON")
    commands.add_parser("destroy", help="end a domain by hand").add_argument("uuid")
    guest = commands.add_parser("guest", help="make a guest do something by itself")
    guest.add_argument("uuid")
    guest.add_argument("do", choices=("poweroff", "reboot", "crash", "ignore-shutdown"))
    fault = commands.add_parser("fault", help="make a call misbehave (see faults.py); without arguments: clear")
    fault.add_argument("call", nargs="?")
    fault.add_argument("behaviour", nargs="?", choices=sorted(BEHAVIOURS))
    fault.add_argument("--count", type=int)
    fault.add_argument("--seconds", type=float, default=0.2)
    arguments = parser.parse_args(argv)
    ledger = Ledger(arguments.state_dir)
    match arguments.command:
        case "list":
            for entry in ledger.entries():
                if arguments.uuid in (None, entry.uuid):
                    print(json.dumps(describe(ledger, entry)))
        case "info":
            settings = ledger.settings()
            machine = {"total_memory": settings.total_memory, "free_memory": ledger.free_memory()}
            print(json.dumps({**machine, "cpus": settings.cpus, "scheduler": settings.scheduler}))
        case "fault":
            table = FaultTable(ledger.root / "faults.json")
            wanted = (arguments.call, arguments.behaviour)
            table.set(*([Fault(*wanted, count=arguments.count, seconds=arguments.seconds)] if all(wanted) else []))
        case command:
            domain = ledger.entry(arguments.uuid)
            if domain is None:
                print(f"there is no domain {arguments.uuid}", file=sys.stderr)
                return 1
            if command == "destroy":
                destroy(ledger, domain)
            else:
                order = {"do": arguments.do, "id": time.monotonic_ns()}
                write_json(ledger.directory(domain.uuid) / "command.json", order)
                os.kill(domain.pid, signal.SIGUSR1)
    return 0


def describe(ledger: Ledger, entry: Entry) -> dict[str, Any]:
    """A domain as its process and its guest's own view say."""
    process = look(entry)
    state = "paused" if process.stopped else "running" if process.alive else "ended"
    truth: dict[str, Any] = {}
    with contextlib.suppress(FileNotFoundError):
        truth = read_json(ledger.directory(entry.uuid) / "truth.json")
    facts = {"uuid": entry.uuid, "domid": entry.domid, "name": entry.name, "memory": entry.memory}
    return {**facts, "weight": entry.weight, "cap": entry.cap, "state": state, "guest": truth}


def destroy(ledger: Ledger, entry: Entry) -> None:
    """What ``xl destroy`` by hand is on real Xen."""
    with ledger.locked():
        if look(entry).alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(entry.pid, signal.SIGKILL)
        ledger.remove(entry.uuid)


if __name__ == "__main__":
    sys.exit(main())
