"""``virmo node …``: raw access to a device's management tree."""

from __future__ import annotations

from virmo_server.cli.arguments import Nouns, command, device_argument, noun, order_options
from virmo_server.cli.context import Context

#: Verb → help; the verbs with a value take it as last argument.
VERBS = {
    "get": "read a node; ?list=Struct and ?prop=Name work, too",
    "add": "add a node; without VALUE an interior one",
    "replace": "replace a node's value",
    "delete": "delete a node with all below it",
    "exec": "run the operation behind a node",
}
FORMATS = ("b64", "bool", "chr", "int", "node", "null", "xml", "date", "time", "float")


def register(nouns: Nouns) -> None:
    """Add the commands to the parser."""
    verbs = noun(nouns, "node", "read and change single nodes of a device's tree, for those who know it")
    for verb, help_text in VERBS.items():
        parser = command(verbs, verb, _run, help_text)
        parser.set_defaults(verb=verb)
        device_argument(parser)
        parser.add_argument("uri", metavar="URI", help="such as ./VirMO")
        if verb in {"add", "replace", "exec"}:
            required = verb == "replace"
            parser.add_argument("value", nargs=None if required else "?", metavar="VALUE", help="the value")
            parser.add_argument("--format", choices=FORMATS, help="Format of the value (default: chr)")
            parser.add_argument("--type", metavar="TYPE", help="MIME type of the value (default: text/plain)")
        order_options(parser)


def _run(context: Context) -> int:
    options = context.options
    body = {"kind": f"node-{options.verb}", "uri": options.uri}
    if options.verb in {"add", "replace", "exec"}:
        data_format = options.format
        if options.verb == "add" and options.value is None and data_format is None:
            data_format = "node"
        body |= {"value": options.value or "", "format": data_format, "type": options.type}
    return context.place_order(options.device, body)
