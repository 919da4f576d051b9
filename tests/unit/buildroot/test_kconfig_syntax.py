# ruff: noqa: E101 - Kconfig indents help with a tab and two blanks
"""The parser that guards the tree's Config.in files must itself refuse what Kconfig would."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.buildroot.kconfig_syntax import KconfigSyntaxError, parse

GOOD = """\
menu "Title"

config BR2_PACKAGE_A
	bool "a"
	depends on BR2_x86_64 || BR2_aarch64 # why
	depends on !BR2_B || \\
		(!BR2_C && BR2_D)
	select BR2_PACKAGE_B if BR2_D # runtime
	help
	  What it is.

	  Where it is from.

if BR2_PACKAGE_A
source "a/Config.in"
endif

comment "a needs threads"
	depends on !BR2_T

endmenu
"""


def write(folder: Path, text: str) -> Path:
    file = folder / "Config.in"
    file.write_text(text)
    return file


def test_reads_what_the_tree_uses(tmp_path: Path) -> None:
    parsed = parse(write(tmp_path, GOOD))
    (option,) = parsed.options
    assert option.symbol == "BR2_PACKAGE_A"
    assert option.prompt == "a"
    assert option.selects == ["BR2_PACKAGE_B"]
    assert len(option.depends) == 2
    assert option.help == "What it is.\n\nWhere it is from.\n\n"
    assert parsed.sources == ["a/Config.in"]
    assert parsed.comments == ["a needs threads"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("endif\n", ""),
        ("endmenu\n", "endif\n"),
        ("select BR2_PACKAGE_B", "selects BR2_PACKAGE_B"),
        ("select BR2_PACKAGE_B if", "select BR2_PACKAGE_B when"),
        ('bool "a"', 'bool "a'),
        ("depends on BR2_x86_64 ||", "depends on BR2_x86_64 |"),
        ("\tdepends on BR2_x86_64", "    depends on BR2_x86_64"),
        ('menu "Title"\n', '\tselect BR2_X\nmenu "Title"\n'),
        ("\t  What it is.", "\tWhat it is."),
    ],
)
def test_refuses_a_mistake(tmp_path: Path, old: str, new: str) -> None:
    assert old in GOOD
    with pytest.raises(KconfigSyntaxError):
        parse(write(tmp_path, GOOD.replace(old, new)))
