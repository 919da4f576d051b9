"""``virmo order …`` and ``virmo group …``"""

from __future__ import annotations

from typing import Any

from virmo_server.cli.arguments import Nouns, command, noun, wait_options
from virmo_server.cli.client import segment
from virmo_server.cli.context import EXIT_OK, Context, group_summary, order_summary
from virmo_server.cli.output import ago
from virmo_server.cli.waiting import wait_for_group

STATES = ("queued", "sent", "accepted", "done", "failed", "expired", "cancelled")


def register(nouns: Nouns) -> None:
    """Add the commands to the parser."""
    verbs = noun(nouns, "order", "see and cancel what was ordered of devices")
    listing = command(verbs, "list", _list, "list orders, newest first")
    listing.add_argument("device", nargs="?", metavar="DEVICE", help="only of this device")
    listing.add_argument("--state", choices=STATES, help="only in this state")
    listing.add_argument("--group", type=int, metavar="N", help="only of this group")
    listing.add_argument("--limit", type=int, default=50, metavar="N", help="at most so many (default: %(default)s)")
    show = command(verbs, "show", _show, "show an order with its trail; with --wait, see it through")
    show.add_argument("order", metavar="ORDER")
    wait_options(show)
    cancel = command(verbs, "cancel", _cancel, "end an order without waiting for the device")
    cancel.add_argument("order", metavar="ORDER")
    groups = noun(nouns, "group", "see orders that were given to many devices at once (with @LABEL)")
    listing = command(groups, "list", _list_groups, "list order groups, newest first")
    listing.add_argument("--limit", type=int, default=50, metavar="N", help="at most so many (default: %(default)s)")
    show = command(groups, "show", _show_group, "show how the orders of a group stand; with --wait, see them through")
    show.add_argument("group", metavar="GROUP")
    wait_options(show)


def _list(context: Context) -> int:
    options = context.options
    orders = context.client.get(
        "/orders", device=options.device, state=options.state, group=options.group, limit=options.limit
    )
    if context.output.as_json:
        context.output.json(orders)
        return EXIT_OK
    rows = [
        [
            str(order["id"]),
            order["device"],
            order["kind"],
            order["name"] or "-",
            order["state"],
            "-" if order["dm_status"] is None else str(order["dm_status"]),
            ago(order["created_at"]),
            order["message"],
        ]
        for order in orders
    ]
    headings = ["ORDER", "DEVICE", "KIND", "NAME", "STATE", "DM STATUS", "MADE", "RESULT"]
    context.output.table(headings, rows, empty="no orders")
    return EXIT_OK


def _show(context: Context) -> int:
    order: dict[str, Any] = context.client.get(f"/orders/{segment(context.options.order)}")
    if context.options.wait:
        return context.see_through(order)
    if context.output.as_json:
        context.output.json(order)
        return EXIT_OK
    context.output.facts(
        {
            "order": str(order["id"]),
            "kind": order["kind"],
            "device": order["device"],
            "target": order["target"],
            "state": order["state"],
            "made": f"{ago(order['created_at'])} by {order['created_by']}",
            "deadline": ago(order["deadline"]),
            "ended": "-" if order["finished_at"] is None else ago(order["finished_at"]),
            "DM status": order["dm_status_text"] or "-",
            "result": order["message"] or "-",
        }
    )
    context.output.line("")
    rows = [[event["at"], event["actor"], event["state"], event["step"], event["text"]] for event in order["events"]]
    context.output.table(["TIME", "BY", "STATE", "STEP", "WHAT"], rows, empty="no trail")
    return EXIT_OK


def _cancel(context: Context) -> int:
    order = context.client.post(f"/orders/{segment(context.options.order)}/cancel")
    if context.output.as_json:
        context.output.json(order)
    else:
        context.output.line(order_summary(order))
    return EXIT_OK


def _list_groups(context: Context) -> int:
    groups = context.client.get("/groups", limit=context.options.limit)
    if context.output.as_json:
        context.output.json(groups)
        return EXIT_OK
    for group in groups:
        context.output.line(f"{group_summary(group)}, made {ago(group['created_at'])} by {group['created_by']}")
    if not groups:
        context.output.line("no order groups: give an order with @LABEL instead of a device")
    return EXIT_OK


def _show_group(context: Context) -> int:
    group = context.client.get(f"/groups/{segment(context.options.group)}")
    if context.options.wait:
        group = wait_for_group(context.client, context.output, group, context.options.timeout)
    return context.tell_group(group)
