#!/usr/bin/env python3
"""Seconds for each operation of a VM's life on real, nested Xen: the agent beside bare ``xl``, in turns.

A dom0 in QEMU goes on from the state saved after its boot; ``dom0/lifecycle.py`` runs in it and says what each side
does. The agent may take 1.10 times what ``xl`` takes for the same, by the medians of the rounds. Needs a quiet machine:
emulation and a busy host make single figures jump.

Prints a table and ends with one line of JSON. Exit status 1 when a target is missed (``--report`` only reports).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from image.guest import build_guest  # noqa: E402 - found by the path above
from image.qemu import open_dom0  # noqa: E402
from tests.nested.bundles import unpack_guest  # noqa: E402

TARGET = 1.10
LIFE = ("create", "poweroff", "poweron", "suspend", "resume", "delete")
SHORT_LIFE, SHORT_ROUNDS = ("create", "delete"), 2
PLACE = "/root/bench"
#: seconds for a round of both sides on a slow machine
ROUND = 400.0


def measure(rounds: int, operations: Sequence[str]) -> dict[str, dict[str, list[float]]]:
    """Side → operation → seconds of each round."""
    with tempfile.TemporaryDirectory(prefix="virmo-bench-") as scratch:
        guest = Path(scratch) / "guest"
        unpack_guest(build_guest("x86_64"), guest)
        with open_dom0("x86_64") as dom0:
            dom0.run(["systemctl", "stop", "virmo-agent"], check=False)
            dom0.put(guest, f"{PLACE}/guest")
            dom0.put(Path(__file__).with_name("dom0") / "lifecycle.py", f"{PLACE}/lifecycle.py")
            command = ["python3", f"{PLACE}/lifecycle.py", f"{PLACE}/guest", str(rounds), *operations]
            printed = dom0.run(command, timeout=ROUND * rounds).stdout
    seconds: dict[str, dict[str, list[float]]] = json.loads(printed.splitlines()[-1])
    return seconds


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="lives by each (default 5)")
    parser.add_argument("--short", action="store_true", help="two rounds of create and delete, no judgement")
    parser.add_argument("--report", action="store_true", help="exit with 0 whatever the figures are")
    options = parser.parse_args()
    if options.short:
        options.rounds, options.report = SHORT_ROUNDS, True
    seconds = measure(options.rounds, SHORT_LIFE if options.short else LIFE)
    medians = {side: {name: statistics.median(of) for name, of in rows.items()} for side, rows in seconds.items()}
    ratios = {name: round(medians["agent"][name] / medians["xl"][name], 3) for name in medians["xl"]}
    print(f"{'':12}{'agent s':>10}{'xl s':>10}{'ratio':>8}   least agent, xl")
    for name, ratio in ratios.items():
        least = f"{min(seconds['agent'][name]):.2f}, {min(seconds['xl'][name]):.2f}"
        print(f"{name:12}{medians['agent'][name]:10.2f}{medians['xl'][name]:10.2f}{ratio:8.2f}   {least}")
    missed = [name for name, ratio in ratios.items() if ratio > TARGET]
    result = {
        "bench": "lifecycle",
        "ratios": ratios,
        "targets": dict.fromkeys(ratios, TARGET),
        "figures": {
            "rounds": options.rounds,
            "seconds": {
                side: {name: [round(value, 3) for value in of] for name, of in rows.items()}
                for side, rows in seconds.items()
            },
        },
        "ok": not missed,
    }
    print(json.dumps(result))
    return 1 if missed and not options.report else 0


if __name__ == "__main__":
    sys.exit(main())
