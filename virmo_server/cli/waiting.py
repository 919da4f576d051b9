"""Waits for the end of an order by asking for it again and again: cheap for the server, and proof against restarts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from virmo_server.cli.client import Client, ClientError
from virmo_server.cli.output import Output

FINAL = frozenset({"done", "failed", "expired", "cancelled"})
#: Asked at once, then ever slower: quick orders feel quick, slow ones cost nothing.
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 1.0
#: A server that restarts may be away for so long without ending the wait.
OUTAGE_SECONDS = 20.0


class NotInTime(Exception):  # noqa: N818 - it is what happened
    """``--timeout`` passed; the order goes on."""


def wait_for_order(client: Client, output: Output, order: dict[str, Any], timeout: float | None) -> dict[str, Any]:
    """The order when it has ended; :class:`NotInTime` when that did not happen within ``timeout`` seconds."""
    started = time.monotonic()
    seen = 0
    last_answer = started
    with _display(output, _title(order)) as show:
        pause = FIRST_PAUSE_SECONDS
        while True:
            now = time.monotonic()
            try:
                order = client.get(f"/orders/{order['id']}")
                last_answer = now
            except ClientError as error:
                if error.status is not None or now - last_answer > OUTAGE_SECONDS:
                    raise
            for event in order["events"][seen:]:
                show(f"{event['state']}: {event['text']}" if event["text"] else event["state"])
            seen = len(order["events"])
            if order["state"] in FINAL:
                return order
            if timeout is not None and now - started >= timeout:
                raise NotInTime(
                    f"order {order['id']} has not ended within {timeout:g} s, it is {order['state']}:"
                    f" 'virmo order show {order['id']} --wait' goes on waiting, 'virmo order cancel' ends it"
                )
            time.sleep(pause)
            pause = min(pause * 1.5, LONGEST_PAUSE_SECONDS)


def wait_for_group(client: Client, output: Output, group: dict[str, Any], timeout: float | None) -> dict[str, Any]:
    """The group when all its orders have ended; :class:`NotInTime` as for an order."""
    started = time.monotonic()
    with _display(output, f"group {group['id']}: {group['label']}") as show:
        shown = None
        while True:
            group = client.get(f"/groups/{group['id']}")
            states = ", ".join(f"{count} {state}" for state, count in group["states"].items())
            if states != shown:
                show(states)
                shown = states
            if set(group["states"]) <= FINAL:
                return group
            if timeout is not None and time.monotonic() - started >= timeout:
                raise NotInTime(f"group {group['id']} has not ended within {timeout:g} s: {states}")
            time.sleep(LONGEST_PAUSE_SECONDS)


@contextmanager
def upload_progress(output: Output, name: str, size: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, nothing elsewhere; the callable takes the bytes sent so far."""
    if output.as_json or not output.is_terminal:
        yield lambda _sent: None
        return
    columns = (TextColumn("uploading {task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
    with Progress(*columns, console=output.console, transient=True) as progress:
        task = progress.add_task(name, total=size)
        yield lambda sent: progress.update(task, completed=sent)


@contextmanager
def _display(output: Output, title: str) -> Iterator[Callable[[str], None]]:
    if output.as_json:
        yield lambda _text: None
    elif output.is_terminal:
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        with Progress(*columns, console=output.console, transient=True) as progress:
            task = progress.add_task(title)
            yield lambda text: progress.update(task, description=f"{title}: {text}")
    else:
        output.line(title)
        yield lambda text: output.line(f"  {text}")


def _title(order: dict[str, Any]) -> str:
    name = f" {order['name']}" if order["name"] else ""
    return f"order {order['id']}: {order['kind']}{name} on {order['device']}"
