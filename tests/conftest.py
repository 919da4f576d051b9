"""Options that all tests share."""

from __future__ import annotations

import pytest

#: ``--requirement-results``: what the table of requirements is made of
pytest_plugins = ["tests.requirements.results"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--long``: tests that have a short and a full form run the full one."""
    parser.addoption("--long", action="store_true", help="run long campaigns in their full form")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What is marked ``long`` belongs to the long form alone."""
    if config.getoption("--long"):
        return
    chosen = [item for item in items if item.get_closest_marker("long") is None]
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = chosen


def pytest_make_parametrize_id(val: object) -> str | None:
    """Parameters with a name are called by it: readable, and the same in every process of a parallel run."""
    name = getattr(val, "name", None)
    return name if isinstance(name, str) else None


@pytest.fixture(scope="session")
def long_form(request: pytest.FixtureRequest) -> bool:
    """Whether this run may take its time."""
    return bool(request.config.getoption("--long"))
