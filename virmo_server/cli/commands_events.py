"""``virmo events``: follows what changes on the server."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from virmo_server.cli.arguments import Nouns
from virmo_server.cli.client import ClientError, Event
from virmo_server.cli.context import EXIT_OK, Context
from virmo_server.cli.waiting import OUTAGE_SECONDS

KINDS = ("device", "vm", "image", "order", "alert")
_PAUSE_SECONDS = 0.5


def register(nouns: Nouns) -> None:
    """Add the command to the parser."""
    text = "follow what changes: devices, VMs, images, orders, alerts; Ctrl-C ends it"
    parser = nouns.add_parser("events", help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.set_defaults(run=_follow)
    parser.add_argument("device", nargs="?", metavar="DEVICE", help="only of this device, by name")
    parser.add_argument("--kind", choices=KINDS, help="only of this kind")
    parser.add_argument("--after", type=int, metavar="N", help="begin after event N (default: from now on)")
    parser.add_argument("--count", type=int, metavar="N", help="end after so many (default: never)")
    parser.add_argument("--json", action="store_true", help="print each event as a line of JSON")


def _follow(context: Context) -> int:
    """Goes on where it was when the server restarts; exit status 3 when it stays away."""
    options = context.options
    after, left = options.after, options.count
    broken_since: float | None = None
    while True:
        try:
            for event in context.client.events(device=options.device, kind=options.kind, after=after):
                broken_since, after = None, event.id
                print(_line(event, as_json=options.json), flush=True)
                left = None if left is None else left - 1
                if left == 0:
                    return EXIT_OK
        except ClientError as error:
            now = time.monotonic()
            broken_since = broken_since or now
            if error.status is not None or now - broken_since > OUTAGE_SECONDS:
                raise
        time.sleep(_PAUSE_SECONDS)


def _line(event: Event, *, as_json: bool) -> str:
    if as_json:
        return json.dumps({"id": event.id, "event": event.kind, **event.data})
    data = event.data
    if event.kind not in _DESCRIBE:
        return f"{event.id} {event.kind}"
    return f"{data['at'][11:19]} {data['device'] or '-'}: {_DESCRIBE[event.kind](data)}"


def _entry(what: str) -> Callable[[Mapping[str, Any]], str]:
    def describe(data: Mapping[str, Any]) -> str:
        name = data["name"] or data["node"]
        if "leaf" not in data:
            return f"{what} {name} {data['change']}"
        return f"{what} {name} {data['leaf']} {data.get('state_text') or data['value']}"

    return describe


def _order(data: Mapping[str, Any]) -> str:
    name = f" {data['name']}" if data["name"] else ""
    message = f": {data['message']}" if data["message"] else ""
    return f"order {data['id']} {data['kind']}{name} {data['state']}{message}"


_DESCRIBE: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "device": lambda data: str(data["change"]),
    "vm": _entry("VM"),
    "image": _entry("image"),
    "order": _order,
    "alert": lambda data: f"alert {data['type']} {data['source']} {data['data']}",
}
