"""buildroot/scripts/check: what it says and when it fails. Against a real Buildroot it is run by hand."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from buildroot.scripts.check_tree import TREE, CheckError, Subject, check_info, check_paths, report, tool

SCRIPT = TREE / "scripts/check"


def findings(*lines: str) -> Iterator[str]:
    yield from lines


def failing() -> Iterator[str]:
    yield "one complaint"
    raise CheckError("make: exit status 2\nlast words")


def subject(output: Path, info: str = "{}") -> Subject:
    """A Buildroot whose make prints ``info``."""
    buildroot = output / "buildroot"
    buildroot.mkdir()
    (buildroot / "Makefile").write_text(f"show-info:\n\t@cat {output}/info\n")
    (output / "info").write_text(info)
    return Subject(buildroot, TREE / "configs/virmo_pc_x86_64_dom0_defconfig", output, None)


def test_report_of_a_check_that_passed(capsys: pytest.CaptureFixture[str]) -> None:
    assert report("options", findings("= 12 options"))
    out = capsys.readouterr().out
    assert "ok" in out
    assert "12 options" in out


def test_report_shows_every_complaint_and_a_failed_tool(capsys: pytest.CaptureFixture[str]) -> None:
    assert not report("options", failing())
    out = capsys.readouterr().out
    assert "FAILED" in out
    assert "one complaint" in out
    assert "last words" in out


def test_tool_s_failure_is_an_error_with_its_output() -> None:
    with pytest.raises(CheckError, match="exit status 3\noops"):
        tool(["sh", "-c", "echo oops >&2; exit 3"])
    with pytest.raises(CheckError, match="no-such-tool is not installed"):
        tool(["no-such-tool"])


def test_paths_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / ".config").write_text('BR2_A="$(BR2_EXTERNAL_VIRMO_PATH)/kernel/dom0.config"\nBR2_B="/usr/x"\n')
    assert list(check_paths(subject(tmp_path))) == ["= 1 paths"]
    (tmp_path / ".config").write_text('BR2_A="$(BR2_EXTERNAL_VIRMO_PATH)/kernel/dom1.config"\n')
    assert next(check_paths(Subject(tmp_path, tmp_path, tmp_path, None))).startswith("BR2_A: there is no ")


def test_info_wants_a_hash_for_every_source_and_a_licence_for_ours(tmp_path: Path) -> None:
    info = """{
      "python-pyxs": {"licenses": "unknown", "license_files": [], "hashes": ["a.hash"],
                      "downloads": [{"source": "pyxs-0.4.1.tar.gz", "uris": ["https+x"]}]},
      "zlib": {"licenses": "Zlib", "license_files": ["README"], "hashes": ["a.hash"],
               "downloads": [{"source": "zlib-1.tar.gz", "uris": ["https+x"]}]},
      "virmo-agent": {"licenses": "Apache-2.0", "license_files": ["LICENSE"], "hashes": [],
                      "downloads": [{"source": "virmo-agent-0.1.0.tar.gz", "uris": ["local+x"]}]}}"""
    one = subject(tmp_path, info)
    (one.buildroot / "a.hash").write_text("sha256  00  pyxs-0.4.1.tar.gz\nsha256  00  not-zlib-1.tar.gz.asc\n")
    assert list(check_info(one)) == [
        "python-pyxs: no licence",
        "zlib: no hash for zlib-1.tar.gz",
        "= 3 packages, 2 downloads with hashes, ours: python-pyxs, virmo-agent",
    ]


def test_program_refuses_what_is_no_buildroot(tmp_path: Path) -> None:
    done = subprocess.run([SCRIPT, tmp_path], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert "is no Buildroot" in done.stderr


def test_names_may_follow_options(tmp_path: Path) -> None:
    script = tmp_path / "support/scripts/graph-depends"
    script.parent.mkdir(parents=True)
    script.touch()
    argv = [str(SCRIPT), str(tmp_path), "--output", str(tmp_path / "o"), "virmo_nothing"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert "no such defconfig: virmo_nothing" in done.stderr
