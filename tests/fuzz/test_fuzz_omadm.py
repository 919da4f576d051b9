"""The fuzzer's short campaign (30 s) in every run of the tests, its long one (10 minutes) with ``--long``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

FUZZER = Path(__file__).with_name("fuzz_omadm.py")


@pytest.mark.timeout(900)
def test_nothing_but_protocol_error_escapes(long_form: bool, tmp_path: Path) -> None:
    seconds = 600 if long_form else 30
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
    assert result["inputs"] > 1000, "the campaign was too slow to find anything"
    targets = {"notification", "hmac header", "bootstrap", "tnds", "tnds+wbxml"}
    assert set(result["by_target"]) >= targets
    assert all(result["outcomes"][name] >= 4 for name in targets), "mutations that all end alike reach nothing"
