"""The quick frozen dataclasses behave like the plain ones."""

from __future__ import annotations

import dataclasses
import pickle
from typing import ClassVar

import pytest

from dom0_agent.omadm import commands as c
from dom0_agent.omadm.frozen import frozen


@frozen
class Sample:
    NAME: ClassVar[str] = "sample"
    first: int
    second: str = "x"


def test_it_is_a_frozen_dataclass_with_slots() -> None:
    sample = Sample(1)
    assert (sample.first, sample.second, Sample.NAME) == (1, "x", "sample")
    assert Sample(first=1, second="y") == dataclasses.replace(sample, second="y")
    assert hash(Sample(1)) == hash(sample)
    assert repr(sample) == "Sample(first=1, second='x')"
    assert not hasattr(sample, "__dict__")
    with pytest.raises(dataclasses.FrozenInstanceError):
        sample.first = 2  # type: ignore[misc]
    with pytest.raises(TypeError):
        Sample()  # type: ignore[call-arg]


def test_it_can_be_pickled() -> None:
    item = c.Item("./x", data="1")
    assert pickle.loads(pickle.dumps(item)) == item  # noqa: S301 - our own octets


def test_fields_that_it_cannot_make_quick_are_refused() -> None:
    with pytest.raises(TypeError, match="plain positional"):

        @frozen
        class _Bad:
            items: list[int] = dataclasses.field(default_factory=list)
