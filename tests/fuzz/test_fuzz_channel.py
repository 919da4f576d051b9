"""The channel fuzzer's short campaign in every run of the tests, its long one with ``--long``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

FUZZER = Path(__file__).with_name("fuzz_channel.py")


@pytest.mark.timeout(900)
def test_nothing_but_protocol_error_escapes(long_form: bool, tmp_path: Path) -> None:
    seconds = 600 if long_form else 10
    done = subprocess.run(
        [sys.executable, FUZZER, "--seconds", str(seconds)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=seconds + 120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert min(result["by_target"].values()) > 300, "the campaign was too slow to find anything"
    assert min(result["ended"].values()) > 50, "good streams and bad ones were both tried"
