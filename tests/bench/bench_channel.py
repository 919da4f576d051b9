#!/usr/bin/env python3
"""A request to a guest's shim and its answer, on nested Xen: over vchan beside a bare libxenvchan ping-pong, and
through XenStore beside bare writes and reads of a node with a watch.

"round trip" is a small request (200 bytes each way), "throughput" a large one (1 MiB over vchan, 64 KiB through
XenStore), each way and back. Targets: at most three times the bare round trip, at most twice the bare time for the
large one. Prints a table and ends with one line of JSON. Exit status 1 when a target is missed (never with
``--short``).
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

TARGETS = {"round trip": 3.0, "throughput": 2.0}
ROUNDS, SHORT_ROUNDS = 100, 5
CODE = ("dom0_agent", "guest_shim", "tests/nested/channel", "tests/bench/channel")
ECHO = "tests/bench/channel/guest_side.py"
#: The shim, and beside it the bare echoes.
SHIM = """#!/bin/sh
export PYTHONPATH=/usr/lib/virmo:/root
python3 -S -m tests.bench.channel.guest_side &
exec python3 -S -m guest_shim
"""
DEADLINE = 900.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="only see that it runs; exit 0 whatever the figures are")
    options = parser.parse_args()
    rounds = SHORT_ROUNDS if options.short else ROUNDS
    with tempfile.TemporaryDirectory(prefix="virmo-bench-") as scratch:
        folder = pathlib.Path(scratch)
        lay_out(folder, CODE, SHIM, {ECHO: REPOSITORY / ECHO})
        with open_dom0("x86_64") as dom0:
            dom0.run(["sh", "-c", "systemctl stop virmo-agent 2>/dev/null; true"])
            dom0.put(folder, PLACE)
            command = python("tests.bench.channel.dom0_side", f"{PLACE}/guest", str(rounds))
            figures = json.loads(dom0.run(command, timeout=DEADLINE).stdout.splitlines()[-1])
    ratios = {}
    print(f"{'case':22}{'bytes':>9}{'ours ms':>10}{'bare ms':>10}{'ratio':>7}{'MB/s':>8}")
    for case, row in figures.items():
        ratios[case] = row["ours_ms"] / row["bare_ms"]
        rate = 2 * row["bytes"] / row["ours_ms"] / 1000
        print(f"{case:22}{row['bytes']:9}{row['ours_ms']:10.2f}{row['bare_ms']:10.2f}{ratios[case]:7.2f}{rate:8.2f}")
    targets = {case: next(target for what, target in TARGETS.items() if case.endswith(what)) for case in ratios}
    result = {
        "bench": "channel",
        "ratios": {case: round(ratio, 2) for case, ratio in ratios.items()},
        "targets": targets,
        "figures": {case: {key: round(value, 2) for key, value in row.items()} for case, row in figures.items()},
    }
    print(json.dumps(result))
    return 0 if options.short or all(ratio <= targets[case] for case, ratio in ratios.items()) else 1


if __name__ == "__main__":
    sys.exit(main())
