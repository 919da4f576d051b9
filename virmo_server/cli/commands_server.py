"""``virmo server …`` and ``virmo token …``: the server itself, and who may use it."""

from __future__ import annotations

from virmo_server.cli.arguments import Nouns, command, noun
from virmo_server.cli.client import segment
from virmo_server.cli.context import EXIT_OK, EXIT_REFUSED, Context
from virmo_server.cli.output import ago


def register(nouns: Nouns) -> None:
    """Add the commands to the parser."""
    server = noun(nouns, "server", "see who answers")
    command(server, "show", _show, "show the server's name and version, and who you are to it")
    command(server, "ca", _ca, "print the server's CA certificate, for the agent's tls.ca_file")
    tokens = noun(nouns, "token", "manage the keys to this server")
    command(tokens, "list", _list, "list tokens and their roles")
    add = command(tokens, "add", _add, "make a token and show it, this one time")
    add.add_argument("name", metavar="NAME", help="who will use it; appears in the trails of orders")
    add.add_argument("--role", choices=("viewer", "operator", "admin"), default="operator", help="default: operator")
    revoke = command(tokens, "revoke", _revoke, "make a token void at once")
    revoke.add_argument("name", metavar="NAME")


def _show(context: Context) -> int:
    server = context.client.get("/server")
    if context.output.as_json:
        context.output.json(server)
        return EXIT_OK
    context.output.facts(
        {
            "ServerID": server["server_id"],
            "version": server["version"],
            "public URL": server["public_url"],
            "you are": f"{server['actor']} ({server['role']})",
        }
    )
    return EXIT_OK


def _ca(context: Context) -> int:
    certificate = context.client.get("/server")["ca_certificate"]
    if context.output.as_json:
        context.output.json({"ca_certificate": certificate})
    elif certificate is None:
        context.output.line("the server's configuration names no tls.ca: its certificate is from a public CA")
        return EXIT_REFUSED
    else:
        print(certificate, end="")
    return EXIT_OK


def _list(context: Context) -> int:
    tokens = context.client.get("/tokens")
    if context.output.as_json:
        context.output.json(tokens)
        return EXIT_OK
    rows = [
        [
            token["name"],
            token["role"],
            ago(token["created_at"]),
            "-" if not token["revoked_at"] else ago(token["revoked_at"]),
        ]
        for token in tokens
    ]
    context.output.table(["NAME", "ROLE", "MADE", "REVOKED"], rows, empty="no tokens")
    return EXIT_OK


def _add(context: Context) -> int:
    token = context.client.post("/tokens", {"name": context.options.name, "role": context.options.role})
    if context.output.as_json:
        context.output.json(token)
    else:
        print(token["token"])
    return EXIT_OK


def _revoke(context: Context) -> int:
    context.client.delete(f"/tokens/{segment(context.options.name)}")
    context.output.line(f"token {context.options.name} is void")
    return EXIT_OK
