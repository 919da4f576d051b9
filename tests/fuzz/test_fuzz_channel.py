"""The channel fuzzer's short campaign in every run of the tests, its long one with ``--long``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.campaign import campaign


@pytest.mark.timeout(900)
def test_nothing_but_protocol_error_escapes(long_form: bool, tmp_path: Path) -> None:
    result = campaign("fuzz_channel.py", 600 if long_form else 10, tmp_path)
    assert min(result["by_target"].values()) > 300, "the campaign was too slow to find anything"
    assert min(result["ended"].values()) > 50, "good streams and bad ones were both tried"
