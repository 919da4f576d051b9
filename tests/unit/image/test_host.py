"""Tools of the build machine: deadlines, errors one can act on, packages only when missing."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from image.errors import ImageError
from image.host import ensure_packages, run_tool


def test_output_and_lines() -> None:
    lines: list[str] = []
    assert run_tool(["printf", "a\\nb\\n"], what="printing", timeout=10, on_line=lines.append) == "a\nb\n"
    assert lines == ["a", "b"]


def test_a_failure_shows_what_the_tool_said() -> None:
    with pytest.raises(ImageError, match=r"trying: sh failed \(exit status 3\)") as caught:
        run_tool(["sh", "-c", "echo no such thing >&2; exit 3"], what="trying", timeout=10)
    assert "no such thing" in caught.value.detail


def test_a_missing_tool_is_named() -> None:
    with pytest.raises(ImageError, match="trying: the program no-such-tool is not installed"):
        run_tool(["no-such-tool"], what="trying", timeout=10)


def test_a_deadline_ends_the_tool_and_its_children() -> None:
    started = time.monotonic()
    with pytest.raises(ImageError, match="did not finish within 0 s"):
        run_tool(["sh", "-c", "sleep 30 & sleep 30"], what="waiting", timeout=0.3)
    assert time.monotonic() - started < 10


def test_present_packages_are_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    ensure_packages({"coreutils": "ls", "base-files": Path("/etc/debian_version")})


def test_who_may_not_install_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ImageError, match="missing: no-such-package") as caught:
        ensure_packages({"no-such-package": "no-such-tool"})
    assert "apt-get install --no-install-recommends no-such-package" in caught.value.todo
