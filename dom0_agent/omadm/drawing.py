"""Draws the two session state machines from their tables, and keeps the drawings in this folder's README.md.

``python -m dom0_agent.omadm.drawing`` rewrites them; a test fails when they are out of date.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from dom0_agent.omadm import client_states, server_states
from dom0_agent.omadm.session import Row

README = Path(__file__).with_name("README.md")


def mermaid(rows: Iterable[Row[Any, Any]], first: str, last: str) -> str:
    """A state machine as a Mermaid state diagram.

    Events that lead to the same place from every state that listens are drawn once, from a box around those states.
    """
    rows = tuple(rows)
    common = max((row.states for row in rows), key=len)
    edges: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        for state in ("Listening",) if row.states == common else row.states:
            edges.setdefault((state, row.target), []).append(f"{row.event} / {row.action}".removesuffix(" / "))
    lines = ["```mermaid", "stateDiagram-v2", "    state Listening {"]
    lines += [f"        {state}" for state in common]
    lines += ["    }", f"    [*] --> {first}"]
    lines += [f"    {source} --> {target}: {'<br/>'.join(labels)}" for (source, target), labels in edges.items()]
    lines += [f"    {last} --> [*]", "```"]
    return "\n".join(lines)


def _client() -> str:
    return mermaid(client_states.ROWS, client_states.ClientState.NEW, client_states.ClientState.OVER)


def _server() -> str:
    return mermaid(server_states.ROWS, server_states.ServerState.NEW, server_states.ServerState.OVER)


DRAWINGS: dict[str, Callable[[], str]] = {"client": _client, "server": _server}


def with_drawings(text: str) -> str:
    """``text`` with what stands between each pair of markers replaced by the drawing of today's table."""
    for name, draw in DRAWINGS.items():
        begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        head, _, rest = text.partition(begin)
        text = f"{head}{begin}\n{draw()}\n{end}{rest.partition(end)[2]}"
    return text


if __name__ == "__main__":
    README.write_text(with_drawings(README.read_text()))
