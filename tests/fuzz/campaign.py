"""Runs a fuzzer of this folder as a process of its own, for so long, and gives what it counted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

#: Seconds beyond its campaign that a fuzzer has to start, and to end.
SLACK = 120


def campaign(fuzzer: str, seconds: int, folder: Path) -> dict[str, Any]:
    """The last line that ``fuzzer`` printed, a JSON object; fails with its errors when something escaped."""
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name(fuzzer), "--seconds", str(seconds)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=seconds + SLACK,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    counted: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return counted
