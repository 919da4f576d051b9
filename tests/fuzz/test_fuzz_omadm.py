"""The fuzzer's short campaign (30 s) in every run of the tests, its long one (10 minutes) with ``--long``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.campaign import campaign


@pytest.mark.timeout(900)
def test_nothing_but_protocol_error_escapes(long_form: bool, tmp_path: Path) -> None:
    result = campaign("fuzz_omadm.py", 600 if long_form else 30, tmp_path)
    assert result["inputs"] > 1000, "the campaign was too slow to find anything"
    targets = {"notification", "hmac header", "bootstrap", "tnds", "tnds+wbxml"}
    assert set(result["by_target"]) >= targets
    assert all(result["outcomes"][name] >= 4 for name in targets), "mutations that all end alike reach nothing"
