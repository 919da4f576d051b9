"""``virmo operator …``, ``virmo login``, ``virmo audit``: people, and what they did."""

from __future__ import annotations

import argparse
import getpass
import sys
from collections.abc import Callable
from typing import Any

from virmo_server.cli.arguments import Nouns, command, noun
from virmo_server.cli.client import segment
from virmo_server.cli.context import EXIT_OK, Context
from virmo_server.cli.output import ago

ROLES = ("viewer", "operator", "admin")
PASSWORD_HELP = "The password is asked for, or read from standard input when that is no terminal."  # noqa: S105 - help


def register(nouns: Nouns) -> None:
    """Add the commands to the parser."""
    verbs = noun(nouns, "operator", "manage the accounts of people, who log in with a password")
    command(verbs, "list", _list, "list accounts and their roles")
    add = command(verbs, "add", _add, "make an account")
    add.add_argument("name", metavar="NAME", help="appears in the trails of orders and in the audit trail")
    add.add_argument("--role", choices=ROLES, default="operator", help="default: operator")
    add.epilog = PASSWORD_HELP
    change = command(verbs, "set", _set, "change an account; its log-ins end")
    change.add_argument("name", metavar="NAME")
    change.add_argument("--role", choices=ROLES, help="new role")
    change.add_argument("--password", action="store_true", help="new password")
    change.epilog = PASSWORD_HELP
    remove = command(verbs, "remove", _remove, "remove an account; its log-ins end at once")
    remove.add_argument("name", metavar="NAME")
    login = _single(nouns, "login", _log_in, "log in with a password; prints a token, good for 12 hours")
    login.set_defaults(needs_token=False)
    login.add_argument("name", metavar="NAME")
    login.epilog = PASSWORD_HELP
    _single(nouns, "logout", _log_out, "make the log-in void that VIRMO_TOKEN is from")
    _single(nouns, "password", _change_password, "change your own password; needs a log-in, and ends it")
    audit = _single(nouns, "audit", _audit, "show who asked for what, and what came of it, newest first")
    audit.add_argument("--actor", metavar="NAME", help="only by this operator or token")
    audit.add_argument("--before", type=int, metavar="N", help="only before record N")
    audit.add_argument("--limit", type=int, default=50, metavar="N", help="at most so many (default: %(default)s)")


def _single(nouns: Nouns, name: str, run: Callable[[Context], int], help_text: str) -> argparse.ArgumentParser:
    return command(nouns, name, run, help_text)


def ask_password(prompt: str) -> str:
    """From the terminal, without echo; from standard input's first line when it is none."""
    if sys.stdin.isatty():
        return getpass.getpass(f"{prompt}: ")
    return sys.stdin.readline().rstrip("\r\n")


def _list(context: Context) -> int:
    operators = context.client.get("/operators")
    if context.output.as_json:
        context.output.json(operators)
        return EXIT_OK
    rows = [[o["name"], o["role"], ago(o["created_at"]), ago(o["locked_until"])] for o in operators]
    empty = "no accounts: 'virmo operator add NAME' makes one"
    context.output.table(["NAME", "ROLE", "MADE", "LOCKED UNTIL"], rows, empty=empty)
    return EXIT_OK


def _add(context: Context) -> int:
    options = context.options
    body = {"name": options.name, "role": options.role, "password": ask_password("password of the new account")}
    return _show(context, context.client.post("/operators", body), "is made")


def _set(context: Context) -> int:
    options = context.options
    body: dict[str, Any] = {} if options.role is None else {"role": options.role}
    if options.password:
        body["password"] = ask_password("new password")
    return _show(context, context.client.patch(f"/operators/{segment(options.name)}", body), "is changed")


def _show(context: Context, operator: dict[str, Any], what: str) -> int:
    if context.output.as_json:
        context.output.json(operator)
    else:
        context.output.line(f"account {operator['name']} ({operator['role']}) {what}")
    return EXIT_OK


def _remove(context: Context) -> int:
    context.client.delete(f"/operators/{segment(context.options.name)}")
    context.output.line(f"account {context.options.name} is removed")
    return EXIT_OK


def _log_in(context: Context) -> int:
    body = {"name": context.options.name, "password": ask_password("password")}
    login = context.client.post("/login", body)
    if context.output.as_json:
        context.output.json(login)
    else:
        print(login["token"])
    return EXIT_OK


def _log_out(context: Context) -> int:
    context.client.post("/logout")
    context.output.line("logged out")
    return EXIT_OK


def _change_password(context: Context) -> int:
    context.client.post("/password", {"old": ask_password("old password"), "new": ask_password("new password")})
    context.output.line("the password is changed: log in again")
    return EXIT_OK


def _audit(context: Context) -> int:
    options = context.options
    records = context.client.get("/audit", actor=options.actor, before=options.before, limit=options.limit)
    if context.output.as_json:
        context.output.json(records)
        return EXIT_OK
    rows = [
        [str(r["id"]), r["at"][:19], r["actor"], r["operation"], r["target"], str(r["status"]), r["detail"]]
        for r in records
    ]
    headings = ["NO", "TIME", "WHO", "ASKED FOR", "TARGET", "STATUS", "RESULT"]
    context.output.table(headings, rows, empty="nobody asked for anything yet")
    return EXIT_OK
