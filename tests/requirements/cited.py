"""Which requirements a test proves: the ids that its own text cites, in its docstring, comments, marks or messages.

A module's docstring counts for all of its tests. Ranges are understood: ``R-010 to R-012``, ``VirMO-C-002 to C-008``,
``A-29 to A-32`` (readings).
Read from the source, without importing it. Knows no results.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.requirements.readings import READINGS
from tests.requirements.register import CONFORMANCE, REQUIREMENTS

TESTS = Path(__file__).resolve().parents[1]
#: Cites ids only to test this machinery.
_NOT_MEANT = TESTS / "unit/test_requirements.py"
_KNOWN = frozenset((*REQUIREMENTS, *CONFORMANCE, *READINGS))

_ID = re.compile(
    r"\b(?:(?P<kind>R-|OMA-ERDEF-VirMO-[CS]-|VirMO-[TCS]-)(?P<first>\d{3})(?:-[MO])?|(?P<reading>A-)(?P<number>\d\d))\b"
    r"(?:\s*(?:to|through|…|\.\.+|-)\s*(?:R-|VirMO-[TCS]-|[TCS]-|A-)(?P<last>\d{2,3})\b)?"
)


@dataclass(frozen=True, slots=True)
class Citation:
    """A test (a function, in all its forms) and an id that it cites."""

    requirement: str
    file: str  #: below ``tests``
    test: str


def cited(text: str) -> Iterator[str]:
    """The ids in a text, ranges spelled out: to the ids that there are between the two."""
    for found in _ID.finditer(text):
        kind, first = found["kind"] or found["reading"], found["first"] or found["number"]
        numbers = range(int(first), int(found["last"] or first) + 1)
        ids = (f"{kind}{number:0{len(first)}}" for number in numbers)
        yield from (one for one in ids if one in _KNOWN or not found["last"])


def citations(root: Path = TESTS) -> list[Citation]:
    """All of the tests below ``root``, sorted."""
    return sorted(
        {
            found
            for path in root.rglob("test_*.py")
            if path != _NOT_MEANT
            for found in _of_module(path, path.relative_to(root).as_posix())
        },
        key=lambda citation: (citation.requirement, citation.file, citation.test),
    )


def _of_module(path: Path, name: str) -> Iterator[Citation]:
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    lines = source.splitlines()
    of_all = set(cited(ast.get_docstring(tree) or ""))
    for function, outer in _tests(tree):
        first = min([function.lineno, *(decorator.lineno for decorator in function.decorator_list)])
        text = "\n".join(lines[first - 1 : function.end_lineno])
        for requirement in of_all | outer | set(cited(text)):
            yield Citation(requirement, name, function.name)


def _tests(tree: ast.Module) -> Iterator[tuple[ast.FunctionDef, set[str]]]:
    """Test functions, with the ids that the docstring of their class cites."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield node, set()
        elif isinstance(node, ast.ClassDef):
            outer = set(cited(ast.get_docstring(node) or ""))
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef) and inner.name.startswith("test_"):
                    yield inner, outer
