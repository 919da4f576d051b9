"""Reads a YAML file into frozen dataclasses, and says exactly what is wrong with it.

The dataclasses are the schema: field types are checked, unknown and duplicate keys refused, and every complaint names
file, line, the key's path and what was expected. All complaints are collected, so that one run shows them all.
Knows no key of any configuration; must not import a part of the agent.

Understood types: ``str``, ``int``, ``float``, ``bool``, ``Path``, ``Enum``, ``Literal``, ``X | None``,
``tuple[X, ...]``, and dataclasses. Field metadata: ``doc`` (a sentence for the reference), ``min``, ``max``.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

MAX_BYTES = 1 << 20  #: a configuration of more than a mebibyte is a mistake, not a configuration
MAX_DEPTH = 16  #: deeper than any dataclass here; stops alias cycles

T = TypeVar("T")


class ConfigError(Exception):
    """The file cannot be used. ``problems`` holds one line for each thing to mend."""

    def __init__(self, file: Path, problems: list[str]) -> None:
        super().__init__("\n".join(f"{file}: {problem}" for problem in problems))
        self.file = file
        self.problems = problems


class _Invalid(Exception):  # noqa: N818 - never leaves this module
    """A value is not what its field wants; already noted."""


def setting(doc: str, default: Any = dataclasses.MISSING, *, minimum: float | None = None, **more: Any) -> Any:
    """A dataclass field with the sentence that the configuration reference prints."""
    metadata = {"doc": doc, "min": minimum, "max": more.pop("maximum", None)}
    return dataclasses.field(default=default, metadata=metadata, **more)


def load(schema: type[T], file: Path) -> T:
    """Read ``file`` as ``schema``; :class:`ConfigError` names everything that is wrong."""
    try:
        with file.open("rb") as stream:
            untrusted_bytes = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(file, [f"cannot be read: {error.strerror}"]) from error
    if len(untrusted_bytes) > MAX_BYTES:
        raise ConfigError(file, [f"is larger than {MAX_BYTES} bytes"])
    return parse(schema, untrusted_bytes, file)


def parse(schema: type[T], untrusted_text: bytes | str, file: Path) -> T:
    """Read YAML text as ``schema``; ``file`` is only named in complaints."""
    loader = yaml.SafeLoader(untrusted_text)
    try:
        root = loader.get_single_node()
        reader = _Reader(loader)
        if root is None:
            root = yaml.MappingNode("tag:yaml.org,2002:map", [], yaml.Mark("", 0, 0, 0, None, 0))
        try:
            value = reader.dataclass(schema, root, "")
        except _Invalid:
            value = None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark is not None else ""
        raise ConfigError(file, [f"{where}not YAML: {getattr(error, 'problem', None) or error}"]) from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(file, [f"not YAML that can be read: {error}"]) from error
    finally:
        loader.dispose()
    if reader.problems:
        raise ConfigError(file, reader.problems)
    return typing.cast(T, value)


class _Reader:
    """Walks YAML nodes beside the schema and notes every problem."""

    def __init__(self, loader: yaml.SafeLoader) -> None:
        self._loader = loader
        self._depth = 0
        self.problems: list[str] = []

    def dataclass(self, schema: type[Any], node: yaml.Node, path: str) -> Any:
        """A mapping node as an instance of ``schema``."""
        if not isinstance(node, yaml.MappingNode):
            self._complain(node, path, "a mapping")
        if self._depth >= MAX_DEPTH:
            self._complain(node, path, f"at most {MAX_DEPTH} levels")
        fields = {field.name: field for field in dataclasses.fields(schema) if field.init}
        hints = typing.get_type_hints(schema)
        values: dict[str, Any] = {}
        failed = False
        self._depth += 1
        for key_node, value_node in node.value:
            key = str(key_node.value)
            inner = f"{path}.{key}" if path else key
            try:
                if key not in fields:
                    self._complain(
                        key_node, inner, f"no such key here; known are {', '.join(sorted(fields))}", bare=True
                    )
                if key in values:
                    self._complain(key_node, inner, "given twice", bare=True)
                values[key] = self._value(hints[key], value_node, inner, fields[key].metadata)
            except _Invalid:
                failed = True
                values.setdefault(key, None)
        self._depth -= 1
        for name, field in fields.items():
            missing = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
            if missing and name not in values:
                failed = True
                inner = f"{path}.{name}" if path else name
                self.problems.append(f"{_line(node)}{inner}: missing; expected {describe(hints[name])}")
        if failed:
            raise _Invalid
        try:
            return schema(**values)
        except ValueError as error:  # a dataclass's own __post_init__ check
            self._complain(node, path or "(top)", str(error), bare=True)

    def _value(self, hint: Any, node: yaml.Node, path: str, metadata: typing.Mapping[str, Any]) -> Any:
        if dataclasses.is_dataclass(hint):
            return self.dataclass(typing.cast(type[Any], hint), node, path)
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
        if origin is tuple:
            return self._sequence(arguments[0], node, path, metadata)
        if origin in (typing.Union, types.UnionType):
            if self._scalar(node, path, "") is None and isinstance(node, yaml.ScalarNode):
                return None
            return self._value(next(a for a in arguments if a is not type(None)), node, path, metadata)
        scalar = self._scalar(node, path, describe(hint))
        converted = _SCALARS[_scalar_kind(hint)](hint, scalar)
        if converted is None:
            self._complain(node, path, describe(hint))
        low, high = metadata.get("min"), metadata.get("max")
        if low is not None and converted < low:
            self._complain(node, path, f"at least {low}")
        if high is not None and converted > high:
            self._complain(node, path, f"at most {high}")
        return converted

    def _sequence(self, hint: Any, node: yaml.Node, path: str, metadata: typing.Mapping[str, Any]) -> tuple[Any, ...]:
        if not isinstance(node, yaml.SequenceNode):
            self._complain(node, path, f"a list of {describe(hint)}")
        values, failed = [], False
        for index, inner in enumerate(node.value):
            try:
                values.append(self._value(hint, inner, f"{path}[{index}]", metadata))
            except _Invalid:
                failed = True
        if failed:
            raise _Invalid
        return tuple(values)

    def _scalar(self, node: yaml.Node, path: str, expected: str) -> Any:
        if not isinstance(node, yaml.ScalarNode):
            if expected:
                self._complain(node, path, expected)
            return node
        return self._loader.construct_object(node)

    def _complain(self, node: yaml.Node, path: str, expected: str, *, bare: bool = False) -> typing.NoReturn:
        text = expected if bare else f"expected {expected}, got {self._show(node, path)}"
        self.problems.append(f"{_line(node)}{path or '(top)'}: {text}")
        raise _Invalid

    def _show(self, node: yaml.Node, path: str) -> str:
        if isinstance(node, yaml.SequenceNode):
            return "a list"
        if isinstance(node, yaml.MappingNode):
            return "a mapping"
        # A mistyped secret must not end in a log.
        return "another type" if path.endswith(_SECRETS) else repr(self._loader.construct_object(node))


_SECRETS = ("secret", "nonce", "password", "token")


def _line(node: yaml.Node) -> str:
    return f"line {node.start_mark.line + 1}: "


def _scalar_kind(hint: Any) -> Any:
    if typing.get_origin(hint) is Literal:
        return Literal
    if isinstance(hint, type) and issubclass(hint, Enum):
        return Enum
    return hint


def _enum(hint: Any, value: Any) -> Any:
    return next((member for member in hint if member.value == value), None)


_SCALARS: dict[Any, Callable[[Any, Any], Any]] = {
    str: lambda _, v: v if isinstance(v, str) else None,
    int: lambda _, v: v if isinstance(v, int) and not isinstance(v, bool) else None,
    float: lambda _, v: float(v) if isinstance(v, int | float) and not isinstance(v, bool) else None,
    bool: lambda _, v: v if isinstance(v, bool) else None,
    Path: lambda _, v: Path(v) if isinstance(v, str) and v else None,
    Literal: lambda hint, v: v if v in typing.get_args(hint) and isinstance(v, str) else None,
    Enum: _enum,
}

_NAMES = {str: "text", int: "a whole number", float: "a number", bool: "true or false", Path: "a path"}


def describe(hint: Any) -> str:
    """The type in words, as complaints and the reference print it."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return " or ".join(str(a) for a in arguments)
    if origin is tuple:
        return f"a list of {describe(arguments[0])}"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe(a) for a in arguments if a is not type(None)) + " (or nothing)"
    if isinstance(hint, type) and issubclass(hint, Enum):
        return " or ".join(str(member.value) for member in hint)
    if dataclasses.is_dataclass(hint):
        return "a mapping"
    return _NAMES[hint]


def reference(schema: type[Any], prefix: str = "") -> Iterator[tuple[str, str, str, str]]:
    """Rows (key, type, default, meaning) of the configuration reference, depth first."""
    hints = typing.get_type_hints(schema)
    for field in dataclasses.fields(schema):
        key, hint = f"{prefix}{field.name}", hints[field.name]
        inner = hint
        suffix = "."
        if typing.get_origin(hint) is tuple:
            inner, suffix = typing.get_args(hint)[0], "[]."
        elif typing.get_origin(hint) in (typing.Union, types.UnionType):
            inner = next(a for a in typing.get_args(hint) if a is not type(None))
        if dataclasses.is_dataclass(inner):
            yield from reference(typing.cast(type[Any], inner), key + suffix)
            continue
        yield key, describe(hint), _default(field), field.metadata.get("doc", "")


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is not dataclasses.MISSING:
        value = field.default
        if isinstance(value, bool):
            return str(value).lower()
        return "" if value is None or value == () else str(value.value if isinstance(value, Enum) else value)
    if field.default_factory is not dataclasses.MISSING:
        return str(field.default_factory())
    return "*required*"


def reference_table(schema: type[Any]) -> str:
    """The configuration reference as a Markdown table."""
    rows = [f"| `{key}` | {kind} | {default or '-'} | {doc} |" for key, kind, default, doc in reference(schema)]
    return "\n".join(["| key | value | default | meaning |", "| --- | --- | --- | --- |", *rows])
