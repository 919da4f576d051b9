#!/usr/bin/env python3
"""A request to a guest's shim and its answer, on nested Xen: over vchan beside bare libxenvchan calls, and through
XenStore beside bare writes and reads of nodes with a watch.

"Get" and "Replace" are what a server's command on a node below DMTree becomes, beside 200 bare bytes there and back;
"large Get" and "large Replace" carry 1 MiB over vchan and 64 KiB through XenStore one way, as the bare thing beside
them does. Targets: at most three times the bare round trip, and at least half the bare throughput: at most twice its
time. Prints a table and ends with one line of JSON. Exit status 1 when a target is missed (never with ``--short``).

    python3 tests/bench/bench_channel.py [--short]
"""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from image.qemu import open_dom0
from tests.nested.channel.layout import PLACE, REPOSITORY, lay_out, python

#: How often the bare time ours may take: a round trip, and what is large.
ROUND_TRIP, LARGE = 3.0, 2.0
ROUNDS, SHORT_ROUNDS = 50, 3
CODE = ("dom0_agent", "guest_shim", "tests/nested/channel", "tests/bench/channel")
GUEST_SIDE = "tests/bench/channel/guest_side.py"
SHIM = """#!/bin/sh
export PYTHONPATH=/usr/lib/virmo:/root
exec python3 -S -m tests.bench.channel.guest_side
"""
DEADLINE = 900.0


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--short", action="store_true", help="only see that it runs; exit 0 whatever the figures are")
    options = parser.parse_args()
    rounds = SHORT_ROUNDS if options.short else ROUNDS
    with tempfile.TemporaryDirectory(prefix="virmo-bench-") as scratch:
        folder = pathlib.Path(scratch)
        lay_out(folder, CODE, SHIM, {GUEST_SIDE: REPOSITORY / GUEST_SIDE})
        with open_dom0("x86_64") as dom0:
            dom0.run(["sh", "-c", "systemctl stop virmo-agent 2>/dev/null; true"])
            dom0.put(folder, PLACE)
            command = python("tests.bench.channel.dom0_side", f"{PLACE}/guest", str(rounds))
            figures = json.loads(dom0.run(command, timeout=DEADLINE).stdout.splitlines()[-1])
    ratios = {case: row["ours_ms"] / row["bare_ms"] for case, row in figures.items()}
    targets = {case: LARGE if "large" in case else ROUND_TRIP for case in figures}
    print(f"{'case':24}{'bytes':>9}{'ours ms':>10}{'bare ms':>10}{'ratio':>7}{'target':>8}{'MB/s':>8}")
    for case, row in figures.items():
        rate = row["bytes"] / row["ours_ms"] / 1000
        print(
            f"{case:24}{row['bytes']:9}{row['ours_ms']:10.2f}{row['bare_ms']:10.2f}"
            f"{ratios[case]:7.2f}{targets[case]:8.1f}{rate:8.2f}"
        )
    result = {
        "bench": "channel",
        "short": options.short,
        "ratios": {case: round(ratio, 2) for case, ratio in ratios.items()},
        "targets": targets,
        "figures": {case: {key: round(value, 2) for key, value in row.items()} for case, row in figures.items()},
    }
    print(json.dumps(result))
    return 0 if options.short or all(ratio <= targets[case] for case, ratio in ratios.items()) else 1


if __name__ == "__main__":
    sys.exit(main())
