"""``virmo vm lock``, ``packages``, ``ask`` …: what runs inside a VM, through the shared DM client (11.2)."""

from __future__ import annotations

import argparse
from pathlib import Path

from virmo_server.cli.arguments import Nouns, command, device_argument, order_options
from virmo_server.cli.commands_image import safe_name, uploaded
from virmo_server.cli.context import Context

#: Command of the terminal → kind of the order, help; these need nothing but the VM.
PLAIN = {
    "unlock": ("guest-unlock", "end a lock"),
    "reset": ("guest-reset", "make the VM's disks anew from its image: all its data is lost"),
    "packages": (
        "guest-packages",
        "list the software in a VM, and the packages that the board keeps for it",
    ),
    "info": ("guest-info", "what a guest says of itself: system, kernel, addresses, memory, uptime"),
}
ASKS = ("display", "confirm", "text", "choice", "choices")


def add_verbs(verbs: Nouns) -> None:
    """Add the commands to ``virmo vm``."""
    lock = _verb(verbs, "lock", "no log-in, no session, no network service in the VM until unlock, across reboots")
    lock.add_argument("--partial", action="store_true", help="no log-in and no session, but services go on")
    lock.set_defaults(body=lambda c: {"kind": "guest-partial-lock" if c.options.partial else "guest-lock"})
    for name, (kind, help_text) in PLAIN.items():
        _verb(verbs, name, help_text).set_defaults(body=lambda _c, kind=kind: {"kind": kind})
    wipe = _verb(verbs, "wipe", "erase what the guest offers for it")
    wipe.add_argument("--item", action="append", default=[], metavar="ITEM", help="only this; may be repeated")
    wipe.set_defaults(body=lambda c: {"kind": "guest-wipe", "items": c.options.item})
    _add_install(verbs)
    remove = _verb(verbs, "remove", "remove a software component from a VM")
    remove.add_argument("component", metavar="COMPONENT", help="its name or ID, see 'virmo vm packages'")
    remove.set_defaults(body=lambda c: {"kind": "guest-remove", "component": c.options.component})
    update = _verb(verbs, "update", "replace the VM's system, keep its data; the old system comes back by itself")
    _source(update, "a bundle")
    update.set_defaults(body=lambda c: {"kind": "guest-update", **_given(c)})
    _add_ask(verbs)


def _add_install(verbs: Nouns) -> None:
    install = _verb(verbs, "install", "install a package in a VM; the guest needs no network")
    _source(install, "the package")
    install.add_argument("--id", required=True, metavar="PKGID", help="identifies the package")
    install.add_argument("--title", default="", metavar="TEXT", help="what people call it")
    install.add_argument("--type", default="", metavar="TYPE", help="deb, apk, ipk or tar (default: by its content)")
    install.add_argument("--sha256", metavar="HEX", help="what a package from a URL must be (default: not checked)")
    install.add_argument("--params", default="", metavar="TEXT", help="given to the installer")
    install.add_argument("--inactive", action="store_true", help="install it, but do not activate it")
    install.set_defaults(body=_install)


def _add_ask(verbs: Nouns) -> None:
    ask = _verb(verbs, "ask", "ask the VM's user; the answer is the order's result")
    ask.add_argument("ask", choices=ASKS, metavar="KIND", help=", ".join(ASKS))
    ask.add_argument("text", metavar="TEXT", help="what is shown")
    ask.add_argument("--choice", action="append", default=[], metavar="TEXT", help="for choice and choices; repeat it")
    ask.add_argument("--min", type=int, metavar="SECONDS", help="shown at least so long (MINDT)")
    ask.add_argument("--max", type=int, metavar="SECONDS", help="time to answer (MAXDT)")
    ask.add_argument("--default", default="", metavar="TEXT", help="the answer that is offered (DR)")
    ask.add_argument("--length", type=int, metavar="N", help="most characters of a text (MAXLEN)")
    ask.add_argument("--input", choices=list("ANDTPI"), help="any, number, date, time, phone, IP address (IT)")
    ask.add_argument("--masked", action="store_true", help="do not show what is typed (ET=P)")
    ask.set_defaults(body=_ask)


def _verb(verbs: Nouns, name: str, help_text: str) -> argparse.ArgumentParser:
    parser = command(verbs, name, _order, help_text)
    device_argument(parser)
    parser.add_argument("name", metavar="NAME", help="the VM")
    order_options(parser)
    return parser


def _source(parser: argparse.ArgumentParser, what: str) -> None:
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--file", type=Path, metavar="FILE", help=f"{what}: it is uploaded when new")
    source.add_argument("--url", metavar="URL", help=f"{what}: where the board gets it")
    source.add_argument("--image-id", metavar="ID", help=f"{what}: a file of the library")


def _given(context: Context) -> dict[str, object]:
    """Where the package is, as the order says it."""
    options = context.options
    if options.file is not None:
        return {"image_id": uploaded(context, options.file, safe_name(options.file.name))["id"]}
    return {"url": options.url, "image_id": options.image_id}


def _install(context: Context) -> dict[str, object]:
    options = context.options
    return {
        "kind": "guest-install",
        "pkg_id": options.id,
        "package_name": options.title,
        "type": options.type,
        "sha256": options.sha256,
        "install_params": options.params,
        "inactive": options.inactive,
        **_given(context),
    }


def _ask(context: Context) -> dict[str, object]:
    options = context.options
    return {
        "kind": "guest-ask",
        "ask": options.ask,
        "text": options.text,
        "choices": options.choice,
        "min_seconds": options.min,
        "max_seconds": options.max,
        "default": options.default,
        "max_length": options.length,
        "input": options.input,
        "masked": options.masked,
    }


def _order(context: Context) -> int:
    return context.place_order(context.options.device, {**context.options.body(context), "name": context.options.name})
