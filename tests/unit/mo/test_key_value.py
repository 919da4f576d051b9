"""The key=value strings of VirMO (R-036 to R-049, A-18 to A-20)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dom0_agent.mo.key_value import (
    MAX_PAIRS,
    CreateParams,
    format_allocation,
    format_pairs,
    parse_create_params,
    parse_pairs,
    parse_size,
)
from dom0_agent.omadm.status import DMError
from dom0_agent.vm.model import Allocation

NODE = "./VirMO/a/CreateParams"
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@given(st.dictionaries(texts, texts, max_size=MAX_PAIRS))
def test_what_is_formatted_is_parsed_back(pairs: dict[str, str]) -> None:
    """A-18: any text survives, escaped."""
    assert parse_pairs(format_pairs(pairs.items()), NODE) == pairs


@given(st.text())
def test_only_dm_errors_escape(text: str) -> None:
    try:
        parse_create_params(text, NODE)
    except DMError as error:
        assert error.status == 412


def test_create_params_defaults_to_running() -> None:
    """R-043."""
    assert parse_create_params("ImgID=i1", NODE) == CreateParams("i1", True, {})


@pytest.mark.parametrize(("text", "running"), [("true", True), ("TRUE", True), ("false", False), ("False", False)])
def test_running_is_read(text: str, running: bool) -> None:
    """R-041, R-042."""
    assert parse_create_params(f"Running={text}&ImgID=i1", NODE).running is running


def test_vendor_parameters_are_kept() -> None:
    """R-039, A-19: never an error, in whichever of the strings (R-052, R-067)."""
    assert parse_create_params("ImgID=i1&VCPUs=2", NODE).vendor == {"VCPUs": "2"}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "ImgID is missing"),
        ("Running=true", "ImgID is missing"),
        ("ImgID=", "ImgID is missing"),
        ("ImgID=a&ImgID=b", "ImgID is given twice"),
        ("ImgID=a&Running=maybe", "Running must be true or false"),
        ("ImgID", "'ImgID' is not key=value"),
        ("ImgID=a&&Running=true", "'' is not key=value"),
        ("ImgID=%ff", "not percent-encoded UTF-8"),
        ("&".join(f"k{n}=v" for n in range(MAX_PAIRS + 1)), "more than"),
    ],
)
def test_mistakes_are_412_and_named(text: str, complaint: str) -> None:
    """A-20."""
    with pytest.raises(DMError, match=complaint) as caught:
        parse_create_params(text, NODE)
    assert caught.value.status == 412
    assert NODE in str(caught.value)


def test_current_config_has_all_four_keys() -> None:
    """R-049, A-12."""
    assert format_allocation(Allocation()) == "RAM=0&Storage=0&CPU=0&Network=0"
    assert format_allocation(Allocation(1 << 33, 5, 30, 20)) == "RAM=8589934592&Storage=5&CPU=30&Network=20"


@pytest.mark.parametrize("text", ["-1", "+1", "1.0", "", " 1", "0x1", "1e3", "٣", "9" * 19])
def test_sizes_are_plain_decimal(text: str) -> None:
    """A-18."""
    with pytest.raises(DMError):
        parse_size(text, "RAM", NODE)


def test_sizes_exceed_32_bits() -> None:
    """A-18."""
    assert parse_size("17179869184", "RAM", NODE) == 1 << 34
