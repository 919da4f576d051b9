"""GRUB's environment block: its exact size, in place, and nothing that GRUB could not read."""

from __future__ import annotations

from pathlib import Path

import pytest

from dom0_agent.firmware.grubenv import SIZE, EnvironmentBroken, change, parse, read, render


def test_a_block_has_its_size_and_comes_back() -> None:
    variables = {"slot": "a", "try": "", "tries": "3", "xen_args": "loglvl=all guest_loglvl=all"}
    block = render(variables)
    assert len(block) == SIZE
    assert parse(block) == variables


@pytest.mark.parametrize("variables", [{"a b": "1"}, {"a": "1\nb=2"}, {"a": "x" * SIZE}])
def test_what_a_block_cannot_hold_is_refused(variables: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="GRUB's environment"):
        render(variables)


@pytest.mark.parametrize("block", [b"", b"slot=a\n", render({"slot": "a"})[:-1], b"#" * SIZE])
def test_what_is_no_block_is_refused(block: bytes, tmp_path: Path) -> None:
    file = tmp_path / "grubenv"
    file.write_bytes(block)
    with pytest.raises(EnvironmentBroken, match="grubenv"):
        read(file)


def test_a_change_keeps_the_rest_the_size_and_the_place(tmp_path: Path) -> None:
    """GRUB writes the blocks that it found at its start: the file must stay the same one."""
    file = tmp_path / "grubenv"
    file.write_bytes(render({"slot": "a", "xen_args": "x=1"}))
    before = file.stat().st_ino
    change(file, {"try": "b", "tries": "3"})
    assert read(file) == {"slot": "a", "xen_args": "x=1", "try": "b", "tries": "3"}
    assert (file.stat().st_ino, file.stat().st_size) == (before, SIZE)


def test_a_refused_change_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "grubenv"
    file.write_bytes(render({"slot": "a"}))
    with pytest.raises(EnvironmentBroken):
        change(file, {"tries": "1\n2"})
    assert read(file) == {"slot": "a"}


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentBroken, match="boot partition"):
        change(tmp_path / "nothing", {"slot": "a"})
    assert list(tmp_path.iterdir()) == []


def test_the_boot_loaders_configuration_counts_down_and_gives_up() -> None:
    """What GRUB does with the block, which has no arithmetic: a branch for each number of tries."""
    config = Path(__file__).parents[3] / "image/files/board-grub.cfg"
    text = config.read_text()
    for tries, left in (("3", "2"), ("2", "1"), ("1", "0")):
        assert f'"$tries" = {tries} ]; then set tries={left}; set chosen=$try' in text
    assert 'else set try=""; fi' in text
