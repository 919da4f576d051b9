"""``virmo device …``"""

from __future__ import annotations

import argparse
import base64
import os
from pathlib import Path
from typing import Any

from virmo_server.cli.arguments import Nouns, command, device_argument, noun, order_options
from virmo_server.cli.client import ClientError, segment
from virmo_server.cli.context import EXIT_OK, Context
from virmo_server.cli.output import ago

CERTIFICATE_HELP = "the client certificate that it must show, such as CN=board-1"
NO_DEVICES = "no devices yet: 'virmo device add NAME --dev-id URN --agent-config' registers one"


def register(nouns: Nouns) -> None:
    """Add the commands to the parser."""
    verbs = noun(nouns, "device", "register boards, see how they are")
    add = command(verbs, "add", _add, "register a device and show its credentials, this one time")
    add.add_argument("name", metavar="DEVICE", help="what you call it: letters, digits, . _ -")
    add.add_argument("--dev-id", required=True, metavar="URN", help="its DevInfo/DevId, such as urn:uuid:…")
    add.add_argument("--client-name", metavar="NAME", help="name it authenticates with (default: DEVICE)")
    add.add_argument("--client-secret", metavar="SECRET", help="its secret (default: made by the server)")
    add.add_argument("--server-secret", metavar="SECRET", help="the server's secret (default: made by the server)")
    add.add_argument("--auth", choices=("md5", "hmac", "basic"), help="how both prove who they are (default: md5)")
    add.add_argument("--server-url", metavar="URL", help="how it reaches the server, if not by the public URL")
    add.add_argument("--notify-url", metavar="URL", help="where its agent listens for notifications")
    add.add_argument("--certificate", metavar="SUBJECT", help=CERTIFICATE_HELP)
    add.add_argument("--label", action="append", default=[], metavar="WORD", help="may be repeated")
    add.add_argument("--agent-config", action="store_true", help="print only the agent's YAML, to paste or redirect")
    _bootstrap_option(add)
    listing = command(verbs, "list", _list, "list devices: when they were seen, what fails")
    listing.add_argument("--label", metavar="WORD", help="only devices with this label")
    listing.add_argument("--word", metavar="TEXT", help="only devices with it in name, DevId, maker, model or a label")
    listing.add_argument("--limit", type=int, metavar="N", help="at most so many (default: all)")
    listing.add_argument("--offset", type=int, default=0, metavar="N", help="leave out so many of the first")
    show = command(verbs, "show", _show, "show all that is known of a device")
    device_argument(show)
    change = command(verbs, "set", _set, "change a device")
    device_argument(change)
    change.add_argument("--name", metavar="NAME", help="new name")
    change.add_argument("--server-url", metavar="URL", help="how it reaches the server; '' for the public URL")
    change.add_argument("--notify-url", metavar="URL", help="where its agent listens; '' for nowhere")
    change.add_argument("--certificate", metavar="SUBJECT", help=f"{CERTIFICATE_HELP}; '' for any or none")
    change.add_argument("--label", action="append", metavar="WORD", help="replaces all labels; may be repeated")
    renew = command(verbs, "renew", _renew, "make new credentials; the old ones are void at once")
    device_argument(renew)
    renew.add_argument("--agent-config", action="store_true", help="print only the agent's YAML")
    _bootstrap_option(renew)
    remove = command(verbs, "remove", _remove, "forget a device; the board itself is not touched")
    device_argument(remove)
    refresh = command(verbs, "refresh", _refresh, "read again what the device has")
    device_argument(refresh)
    order_options(refresh)
    alerts = command(verbs, "alerts", _alerts, "show the newest alerts of a device; without DEVICE, of all")
    alerts.add_argument("device", nargs="?", metavar="DEVICE", help="name or DevId of the device")
    alerts.add_argument("--before", type=int, metavar="N", help="without DEVICE: only those before alert N")
    alerts.add_argument("--limit", type=int, default=200, metavar="N", help="at most so many (default: %(default)s)")
    tree = command(verbs, "tree", _tree, "show the device's management tree as last read")
    device_argument(tree)
    tree.add_argument("uri", nargs="?", default=".", metavar="URI", help="below this node (default: everything)")
    trace = command(verbs, "trace", _trace, "show the DM messages of the device's last sessions")
    device_argument(trace)
    trace.add_argument("--sessions", type=int, default=1, metavar="N", help="so many sessions (default: the last one)")


def _bootstrap_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--bootstrap", type=Path, metavar="FILE",
        help="write a bootstrap profile that brings the account to the board, protected by a PIN that is shown",
    )  # fmt: skip


def _add(context: Context) -> int:
    options = context.options
    body = {
        "name": options.name,
        "dev_id": options.dev_id,
        "client_name": options.client_name,
        "client_secret": options.client_secret,
        "server_secret": options.server_secret,
        "base_url": options.server_url,
        "notify_url": options.notify_url,
        "labels": options.label,
        "auth": options.auth,
        "certificate_subject": options.certificate,
    }
    registration = context.client.post("/devices", {key: value for key, value in body.items() if value is not None})
    return _show_registration(context, registration, "is registered")


def _renew(context: Context) -> int:
    registration = context.client.post(f"/devices/{segment(context.options.device)}/credentials")
    return _show_registration(context, registration, "has new credentials")


def _show_registration(context: Context, registration: dict[str, Any], what: str) -> int:
    if context.options.bootstrap is not None:
        _write_profile(context.options.bootstrap, registration["bootstrap"])
    if context.output.as_json:
        context.output.json(registration)
    elif context.options.bootstrap is not None:
        made = registration["bootstrap"]
        context.output.line(f"device {registration['device']['name']} {what}. On the board, with this file:")
        print(
            f"  virmo-agent bootstrap {context.options.bootstrap.name} --content-type '{made['content_type']}'"
            f" --pin {made['pin']}"
        )
        context.output.line("The PIN is not shown again; 'virmo device renew' makes new credentials.")
    elif context.options.agent_config:
        print(registration["agent_config"], end="")
    else:
        context.output.line(f"device {registration['device']['name']} {what}. Put this into the agent's configuration:")
        context.output.line("")
        print(registration["agent_config"])
        context.output.line("These secrets are not shown again; 'virmo device renew' makes new ones.")
    return EXIT_OK


def _write_profile(path: Path, bootstrap: dict[str, str]) -> None:
    """The file holds the board's secrets: its owner alone reads it."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    except OSError as error:
        raise ClientError(
            f"{path}: cannot be written: {error.strerror}; the device is registered, 'virmo device renew' makes new"
            " credentials"
        ) from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(base64.b64decode(bootstrap["profile"]))


def _list(context: Context) -> int:
    options = context.options
    devices = context.client.get(
        "/devices", label=options.label, word=options.word, offset=options.offset, limit=options.limit
    )
    if context.output.as_json:
        context.output.json(devices)
        return EXIT_OK
    rows = [
        [
            device["name"],
            device["dev_id"],
            " ".join(device["labels"]),
            ago(device["last_seen_at"]),
            str(device["vm_count"]),
            str(device["open_orders"]),
            _trouble(device),
        ]
        for device in devices
    ]
    headings = ["DEVICE", "DEVID", "LABELS", "SEEN", "VMS", "ORDERS", "TROUBLE"]
    context.output.table(headings, rows, empty=NO_DEVICES)
    return EXIT_OK


def _show(context: Context) -> int:
    device = context.client.get(f"/devices/{segment(context.options.device)}")
    if context.output.as_json:
        context.output.json(device)
        return EXIT_OK
    context.output.facts(
        {
            "name": device["name"],
            "DevId": device["dev_id"],
            "labels": " ".join(device["labels"]) or "-",
            "made by": " ".join(filter(None, [device["manufacturer"], device["model"]])) or "not yet known",
            "last seen": ago(device["last_seen_at"]),
            "VirMO": device["virmo_root"],
            "VMImgMO": device["vmimg_root"],
            "resources": device["device_resources"] or "not yet known",
            "VMs": str(device["vm_count"]),
            "open orders": str(device["open_orders"]),
            "reaches us by": device["base_url"] or "the public URL",
            "certificate": device["certificate_subject"] or "any or none",
            "notified at": device["notify_url"] or "nowhere: it asks by itself",
            "trouble": _trouble(device) or "-",
        }
    )
    return EXIT_OK


def _set(context: Context) -> int:
    options = context.options
    body: dict[str, Any] = {}
    if options.name is not None:
        body["name"] = options.name
    if options.server_url is not None:
        body["base_url"] = options.server_url or None
    if options.certificate is not None:
        body["certificate_subject"] = options.certificate or None
    if options.notify_url is not None:
        body["notify_url"] = options.notify_url or None
    if options.label is not None:
        body["labels"] = [label for label in options.label if label]
    device = context.client.patch(f"/devices/{segment(options.device)}", body)
    if context.output.as_json:
        context.output.json(device)
    else:
        context.output.line(f"device {device['name']} is changed")
    return EXIT_OK


def _remove(context: Context) -> int:
    context.client.delete(f"/devices/{segment(context.options.device)}")
    context.output.line(f"device {context.options.device} is forgotten")
    return EXIT_OK


def _refresh(context: Context) -> int:
    return context.place_order(context.options.device, {"kind": "refresh"})


def _alerts(context: Context) -> int:
    options = context.options
    if options.device is None:
        alerts = context.client.get("/alerts", before=options.before, limit=options.limit)
    else:
        alerts = context.client.get(f"/devices/{segment(options.device)}/alerts", limit=options.limit)
    if context.output.as_json:
        context.output.json(alerts)
        return EXIT_OK
    rows = [
        [
            str(alert["id"]),
            ago(alert["at"]),
            alert.get("device", options.device),
            alert["type"],
            alert["source"],
            alert["data"],
            str(alert["order"] or "-"),
        ]
        for alert in alerts
    ]
    headings = ["NO", "WHEN", "DEVICE", "TYPE", "SOURCE", "DATA", "ORDER"]
    context.output.table(headings, rows, empty="no alerts came")
    return EXIT_OK


def _tree(context: Context) -> int:
    options = context.options
    nodes = context.client.get(f"/devices/{segment(options.device)}/nodes", uri=options.uri)
    if context.output.as_json:
        context.output.json(nodes)
        return EXIT_OK
    rows = [[node["uri"], node["format"] or "", node["value"] or "", ago(node["known_at"])] for node in nodes]
    empty = f"nothing is known there: run 'virmo device refresh {options.device} --wait' first"
    context.output.table(["NODE", "FORMAT", "VALUE", "READ"], rows, empty=empty)
    return EXIT_OK


def _trace(context: Context) -> int:
    options = context.options
    sessions = context.client.get(f"/devices/{segment(options.device)}/trace", sessions=options.sessions)
    if context.output.as_json:
        context.output.json(sessions)
        return EXIT_OK
    for session in reversed(sessions):
        context.output.line(f"session of {ago(session['started_at'])}")
        for message in session["messages"]:
            arrow = "device:" if message["from_device"] else "server:"
            context.output.line(f"{message['at'][11:23]} {arrow} {message['size']} octets")
            for line in message["lines"]:
                context.output.line(f"    {line}")
    if not sessions:
        context.output.line(f"no messages of {options.device} are kept: it has not been here since they are")
    return EXIT_OK


def _trouble(device: dict[str, Any]) -> str:
    troubles = []
    if device["auth_failed_at"] is not None:
        troubles.append(f"authentication failed {ago(device['auth_failed_at'])}: {device['auth_failure']}")
    if device["notify_error"] is not None:
        troubles.append(f"notification failed: {device['notify_error']}")
    return "; ".join(troubles)
