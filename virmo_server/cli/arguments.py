"""Options that many commands share, so that they are spelt and explained once."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from virmo_server.cli.context import Context

if TYPE_CHECKING:
    Nouns: TypeAlias = argparse._SubParsersAction[argparse.ArgumentParser]
else:
    Nouns = object  # argparse keeps the class to itself, and it cannot be subscripted at run time


def noun(nouns: Nouns, name: str, help_text: str) -> Nouns:
    """A group of commands."""
    parser = nouns.add_parser(name, help=help_text, description=help_text)
    return parser.add_subparsers(required=True, metavar="COMMAND")


def command(verbs: Nouns, name: str, run: Callable[[Context], int], help_text: str) -> argparse.ArgumentParser:
    """One command; all of them can print JSON."""
    parser = verbs.add_parser(name, help=help_text, description=f"{help_text[0].upper()}{help_text[1:]}.")
    parser.set_defaults(run=run)
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    return parser


def device_argument(parser: argparse.ArgumentParser) -> None:
    """DEVICE."""
    parser.add_argument("device", metavar="DEVICE", help="name or DevId of the device")


def order_options(parser: argparse.ArgumentParser) -> None:
    """For commands that make an order; they take ``@LABEL`` for DEVICE."""
    parser.epilog = "DEVICE may be @LABEL: the same order for every device with that label."
    wait_options(parser)
    parser.add_argument(
        "--rate", type=int, metavar="N", help="with @LABEL: at most so many of the orders are under way at once"
    )
    parser.add_argument(
        "--deadline", type=_seconds, metavar="TIME",
        help="the order expires if it is not done by then: 90, 90s, 15m, 12h, 7d (default: set in the server)",
    )  # fmt: skip


def wait_options(parser: argparse.ArgumentParser) -> None:
    """For commands that can see an order through."""
    parser.add_argument("--wait", action="store_true", help="see the order through; exit status 1 if it fails")
    parser.add_argument(
        "--timeout", type=float, metavar="SECONDS",
        help="with --wait: stop waiting after so long (exit status 4); the order goes on",
    )  # fmt: skip


def _seconds(text: str) -> int:
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    number, factor = (text[:-1], units[text[-1]]) if text[-1:] in units else (text, 1)
    if not (number.isascii() and number.isdigit() and int(number) > 0):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a time such as 90, 15m, 12h or 7d")
    return int(number) * factor
