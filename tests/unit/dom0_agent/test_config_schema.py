"""The configuration reader: every mistake named with file, line, key path and what was expected."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Literal

import pytest

from dom0_agent.config_schema import MAX_BYTES, ConfigError, load, parse, reference, setting

FILE = Path("agent.yaml")


class Colour(Enum):
    RED = "red"


@dataclass(frozen=True)
class Inner:
    secret: str = setting("a secret")
    number: int = setting("a number", 3, minimum=1, maximum=9)


@dataclass(frozen=True)
class Outer:
    name: str = setting("a name")
    ratio: float = setting("a ratio", 0.5)
    flag: bool = setting("a flag", False)
    where: Path | None = setting("a path", None)
    kind: Literal["a", "b"] = setting("a kind", "a")
    colour: Colour = setting("a colour", Colour.RED)
    inners: tuple[Inner, ...] = setting("several", ())
    one: Inner = field(default_factory=lambda: Inner("x"))

    def __post_init__(self) -> None:
        if self.name == "bad":
            raise ValueError("name must not be bad")


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(Outer, text, FILE)
    return caught.value.problems


def test_everything_is_read() -> None:
    text = """
        name: n
        ratio: 2
        flag: true
        where: /tmp/x
        kind: b
        colour: red
        inners: [{secret: s, number: 4}, {secret: t}]
        one: {secret: u}
    """
    read = parse(Outer, text, FILE)
    assert read == Outer("n", 2.0, True, Path("/tmp/x"), "b", Colour.RED, (Inner("s", 4), Inner("t", 3)), Inner("u"))


def test_defaults_apply() -> None:
    assert parse(Outer, "name: n\nwhere: null\n", FILE) == Outer("n")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: 5", "line 1: name: expected text, got 5"),
        ("name: n\nratio: fast", "line 2: ratio: expected a number, got 'fast'"),
        ("name: n\nflag: 1", "line 2: flag: expected true or false, got 1"),
        ("name: n\nkind: c", "line 2: kind: expected a or b, got 'c'"),
        ("name: n\ncolour: blue", "line 2: colour: expected red, got 'blue'"),
        ("name: n\ninners: 3", "line 2: inners: expected a list of a mapping, got 3"),
        ("name: n\none: [1]", "line 2: one: expected a mapping, got a list"),
        (
            "name: n\ninners:\n  - {secret: s}\n  - {secret: s, number: 0}",
            "line 4: inners[1].number: expected at least 1, got 0",
        ),
        ("name: n\none: {secret: s, number: 10}", "line 2: one.number: expected at most 9, got 10"),
        ("name: n\none: {number: true, secret: s}", "line 2: one.number: expected a whole number, got True"),
        ("name: n\nname: m", "line 2: name: given twice"),
        ("name: bad", "line 1: (top): name must not be bad"),
        ("ratio: 1", "line 1: name: missing; expected text"),
        ("", "line 1: name: missing; expected text"),
    ],
)
def test_a_mistake_is_named_with_line_path_and_expectation(text: str, expected: str) -> None:
    assert problems(text) == [expected]


def test_an_unknown_key_lists_the_known_ones() -> None:
    (problem,) = problems("name: n\ncolor: red")
    assert problem.startswith("line 2: color: no such key here; known are colour, flag,")


def test_all_mistakes_are_shown_at_once() -> None:
    assert len(problems("name: 1\nflag: x\nkind: q")) == 3


def test_a_mistyped_secret_is_not_shown() -> None:
    (problem,) = problems("name: n\none: {secret: 12345}")
    assert "12345" not in problem


def test_broken_yaml_names_the_line() -> None:
    (problem,) = problems("name: n\n  - x: [")
    assert problem.startswith("line 2: not YAML:")


def test_an_alias_cycle_ends() -> None:
    assert problems("one: &x {secret: s, number: *x}")


def test_an_oversized_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "big.yaml"
    file.write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(ConfigError, match="is larger than"):
        load(Outer, file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read: No such file"):
        load(Outer, tmp_path / "none.yaml")


def test_the_reference_lists_every_key() -> None:
    rows = {key: (kind, default) for key, kind, default, _ in reference(Outer)}
    assert rows["name"] == ("text", "*required*")
    assert rows["inners[].number"] == ("a whole number", "3")
    assert rows["one.secret"] == ("text", "*required*")
    assert rows["colour"] == ("red", "red")
