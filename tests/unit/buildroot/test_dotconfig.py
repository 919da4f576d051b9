"""check-dotconfig: an option that Kconfig drops without a word must be seen."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from buildroot.scripts.dotconfig import DotconfigError, granted, lost, parse, wanted

SCRIPT = Path(__file__).parents[3] / "buildroot/scripts/check-dotconfig"


def run(*files: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SCRIPT, *files], capture_output=True, text=True, timeout=30, check=False)


def write(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.write_text(text)
    return file


def test_reads_what_kconfig_writes() -> None:
    text = '#\n# Automatic\n#\nCONFIG_A=y\n# CONFIG_B is not set\n\nCONFIG_C="x = y"\nCONFIG_D=m\nBR2_E=12\n'
    requests = parse(text, Path("f"))
    assert [(r.symbol, r.value) for r in requests] == [
        ("CONFIG_A", "y"),
        ("CONFIG_B", "n"),
        ("CONFIG_C", '"x = y"'),
        ("CONFIG_D", "m"),
        ("BR2_E", "12"),
    ]
    assert requests[1].line == 5


def test_a_comment_that_looks_like_prose_is_no_request() -> None:
    assert parse("# CONFIG_A is not set by anybody\n# ifb is not set\n", Path("f")) == []


def test_a_line_that_is_nothing_is_an_error_with_its_place() -> None:
    with pytest.raises(DotconfigError, match=r"frag:2: .*CONFIG_A y"):
        parse("\nCONFIG_A y\n", Path("frag"))


@pytest.mark.parametrize(
    ("asked", "config", "found"),
    [
        ("CONFIG_A=y\n", "CONFIG_A=m\n", "m"),
        ("CONFIG_A=y\n", "# CONFIG_A is not set\n", "n"),
        ("CONFIG_A=y\n", "", "n"),
        ("CONFIG_A=m\n", "CONFIG_A=y\n", "y"),
        ("# CONFIG_A is not set\n", "CONFIG_A=y\n", "y"),
        ("CONFIG_A=n\n", "CONFIG_A=m\n", "m"),
        ('CONFIG_A="1G"\n', 'CONFIG_A="2G"\n', '"2G"'),
    ],
)
def test_lost(tmp_path: Path, asked: str, config: str, found: str) -> None:
    fragment, dotconfig = write(tmp_path, "fragment", asked), write(tmp_path, ".config", config)
    (item,) = lost(wanted([fragment]).values(), granted(dotconfig))
    assert item.found == found
    assert str(item).startswith(f"{fragment}:1: CONFIG_A: asked for ")


@pytest.mark.parametrize("asked", ["CONFIG_A=y\n", "# CONFIG_B is not set\n", "CONFIG_B=n\n", "CONFIG_N=4\n"])
def test_kept(tmp_path: Path, asked: str) -> None:
    fragment = write(tmp_path, "fragment", asked)
    dotconfig = write(tmp_path, ".config", "CONFIG_A=y\nCONFIG_N=4\n")
    assert lost(wanted([fragment]).values(), granted(dotconfig)) == []


def test_a_later_file_overrides_an_earlier_one(tmp_path: Path) -> None:
    first, second = write(tmp_path, "1", "CONFIG_A=y\nCONFIG_B=y\n"), write(tmp_path, "2", "CONFIG_A=m\n")
    dotconfig = write(tmp_path, ".config", "CONFIG_A=m\nCONFIG_B=y\n")
    assert lost(wanted([first, second]).values(), granted(dotconfig)) == []
    assert [item.request.file for item in lost(wanted([second, first]).values(), granted(dotconfig))] == [first]


def test_program_counts_and_exits_0_when_all_is_kept(tmp_path: Path) -> None:
    fragment, dotconfig = write(tmp_path, "f", "CONFIG_A=y\n"), write(tmp_path, ".config", "CONFIG_A=y\n")
    done = run(dotconfig, fragment)
    assert done.returncode == 0
    assert done.stdout == f"{dotconfig}: 1 of 1 options asked for are there\n"


def test_program_names_each_lost_option_and_exits_1(tmp_path: Path) -> None:
    fragment = write(tmp_path, "f", "CONFIG_A=y\n# why\nCONFIG_IFB=m\n")
    dotconfig = write(tmp_path, ".config", "CONFIG_A=y\n")
    done = run(dotconfig, fragment)
    assert done.returncode == 1
    assert done.stdout.splitlines()[0] == f"{fragment}:3: CONFIG_IFB: asked for m, .config has n"
    assert "1 of 2" in done.stdout


def test_program_exits_2_when_a_file_cannot_be_read(tmp_path: Path) -> None:
    done = run(tmp_path / "nothing", write(tmp_path, "f", "CONFIG_A=y\n"))
    assert done.returncode == 2
    assert "nothing" in done.stderr
